//! Rows of `externaldata`: files and addresses that the operator of the server allows, none else.

use crate::error::QueryError;
use crate::functions::{Cell, array_of, convert_text};
use arrow::array::ArrayRef;
use flate2::read::GzDecoder;
use serde_json::Value as Json;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;
use vigie_kql::plan::Column;
use vigie_kql::types::Type;

/// Most bytes of one source, packed and unpacked.
const LARGEST: u64 = 256 << 20;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where `externaldata` may read from. The default is nowhere.
#[derive(Clone, Debug, Default)]
pub struct ExternalSources {
    folders: Vec<PathBuf>,
    addresses: Vec<Url>,
}

impl ExternalSources {
    /// Reads what the operator wrote: folders (`/srv/lists`) and the beginnings of `https://` or
    /// `http://` addresses, of which host and port must be the same and the path begin the same way.
    ///
    /// Errors: a folder that is not there, an address that is none.
    pub fn allow(written: &[String]) -> Result<ExternalSources, String> {
        let mut sources = ExternalSources::default();
        for text in written {
            if text.starts_with("http://") || text.starts_with("https://") {
                let url = Url::parse(text).map_err(|error| format!("{text}: {error}"))?;
                sources.addresses.push(url);
                continue;
            }
            let folder = Path::new(text).canonicalize();
            sources.folders.push(folder.map_err(|error| format!("{text}: {error}"))?);
        }
        Ok(sources)
    }

    fn allowed_file(&self, path: &Path) -> Option<PathBuf> {
        // Links and `..` are followed before the comparison.
        let path = path.canonicalize().ok()?;
        self.folders.iter().any(|folder| path.starts_with(folder)).then_some(path)
    }

    fn allows(&self, url: &Url) -> bool {
        self.addresses.iter().any(|allowed| {
            let path = allowed.path();
            let below = url.path().starts_with(path)
                && (path.ends_with('/')
                    || matches!(url.path().as_bytes().get(path.len()), None | Some(b'/')));
            allowed.scheme() == url.scheme()
                && allowed.host() == url.host()
                && allowed.port_or_known_default() == url.port_or_known_default()
                && url.username().is_empty()
                && below
        })
    }

    async fn bytes(&self, uri: &str) -> Result<Vec<u8>, QueryError> {
        // A secret of the original's storage may stand behind a `;`.
        let uri = uri.split(';').next().unwrap_or(uri);
        let failed = |why: &dyn std::fmt::Display| {
            QueryError::Runtime(format!("externaldata: {uri}: {why}"))
        };
        if self.folders.is_empty() && self.addresses.is_empty() {
            let why = "the operator of this server allows no sources";
            return Err(failed(&why));
        }
        let refused = || failed(&"the operator of this server does not allow this source");
        let url = Url::parse(uri).ok();
        if let Some(url) = url.as_ref().filter(|url| matches!(url.scheme(), "http" | "https")) {
            if !self.allows(url) {
                return Err(refused());
            }
            return fetch(url.clone()).await.map_err(|why| failed(&why));
        }
        let path = match url.filter(|url| url.scheme() == "file") {
            Some(url) => url.to_file_path().map_err(|()| refused())?,
            None => PathBuf::from(uri),
        };
        let path = self.allowed_file(&path).ok_or_else(refused)?;
        let file = tokio::fs::metadata(&path).await.map_err(|error| failed(&error))?;
        if file.len() > LARGEST {
            return Err(failed(&"the file is too large"));
        }
        tokio::fs::read(&path).await.map_err(|error| failed(&error))
    }

    /// The rows of all `uris`, as `columns`.
    ///
    /// Errors: [`QueryError::Runtime`] where a source is not allowed, not there, or not of the format.
    pub async fn rows(
        &self,
        uris: &[String],
        properties: &[(String, String)],
        columns: &[Column],
    ) -> Result<Vec<ArrayRef>, QueryError> {
        let property = |name: &str| {
            properties.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
        };
        if property("ingestionMapping").or(property("ingestionMappingReference")).is_some() {
            let message = "externaldata: ingestion mappings are not supported";
            return Err(QueryError::Runtime(message.to_owned()));
        }
        let skip = property("ignoreFirstRecord").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let mut rows: Vec<Vec<Option<String>>> = Vec::new();
        for uri in uris {
            let named = uri.split(['?', ';']).next().unwrap_or(uri).to_ascii_lowercase();
            let (named, packed) = match named.strip_suffix(".gz") {
                Some(inner) => (inner.to_owned(), true),
                None => (named, false),
            };
            let bytes = self.bytes(uri).await?;
            let text = unpacked(bytes, packed)
                .map_err(|why| QueryError::Runtime(format!("externaldata: {uri}: {why}")))?;
            let extension = named.rsplit('.').next().unwrap_or_default();
            let format = property("format").map(str::to_ascii_lowercase);
            let format = format.as_deref().unwrap_or(extension);
            let read = read(&text, format, skip, columns);
            rows.extend(
                read.map_err(|why| QueryError::Runtime(format!("externaldata: {uri}: {why}")))?,
            );
        }
        Ok((columns.iter().enumerate())
            .map(|(at, column)| {
                let cells =
                    rows.iter().map(|row| cell(row.get(at).and_then(Option::as_deref), column.ty));
                array_of(column.ty, cells)
            })
            .collect())
    }
}

fn cell<'a>(text: Option<&str>, ty: Type) -> Cell<'a> {
    match (text, ty) {
        (None, Type::String) => Cell::text(""),
        (None | Some(""), ty) if ty != Type::String => Cell::Null,
        (Some(text), Type::Dynamic) => match serde_json::from_str::<Json>(text) {
            Ok(value) if value.is_null() => Cell::Null,
            Ok(value) => Cell::text(value.to_string()),
            Err(_) => Cell::text(Json::from(text).to_string()),
        },
        (text, ty) => convert_text(ty, text.unwrap_or_default()),
    }
}

async fn fetch(url: Url) -> Result<Vec<u8>, String> {
    // A redirect could lead where the operator allows nothing.
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .map_err(|error| error.to_string())?;
    let answer = client.get(url).send().await.map_err(|error| error.without_url().to_string())?;
    if !answer.status().is_success() {
        return Err(format!("the answer is {}", answer.status()));
    }
    let mut bytes = Vec::new();
    let mut answer = answer;
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > LARGEST {
            return Err("the answer is too large".to_owned());
        }
    }
    Ok(bytes)
}

fn unpacked(bytes: Vec<u8>, packed: bool) -> Result<String, String> {
    let bytes = match packed || bytes.starts_with(&[0x1f, 0x8b]) {
        false => bytes,
        true => {
            let mut out = Vec::new();
            let mut reader = GzDecoder::new(bytes.as_slice()).take(LARGEST + 1);
            reader.read_to_end(&mut out).map_err(|error| error.to_string())?;
            if out.len() as u64 > LARGEST {
                return Err("the unpacked data is too large".to_owned());
            }
            out
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| "the data is no UTF-8 text".to_owned())?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

type Row = Vec<Option<String>>;

fn read(text: &str, format: &str, skip: bool, columns: &[Column]) -> Result<Vec<Row>, String> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    Ok(match format {
        "txt" => {
            let lines = lines(text).into_iter().skip(skip.into());
            lines.map(|line| vec![Some(line)]).collect()
        }
        "raw" => vec![vec![Some(text.to_owned())]],
        "json" | "multijson" | "singlejson" => objects(text, columns)?,
        "csv" => delimited(text, b',', true, skip)?,
        "tsv" | "tsve" => delimited(text, b'\t', format == "tsv", skip)?,
        "psv" => delimited(text, b'|', true, skip)?,
        "scsv" => delimited(text, b';', true, skip)?,
        "sohsv" => delimited(text, 1, true, skip)?,
        "avro" | "apacheavro" | "orc" | "parquet" | "w3clogfile" => {
            return Err(format!("the format '{format}' is not supported"));
        }
        // What has no known ending is read as the original reads it.
        _ => delimited(text, b',', true, skip)?,
    })
}

fn delimited(text: &str, delimiter: u8, quoting: bool, skip: bool) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(quoting)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records().skip(skip.into()) {
        let record = record.map_err(|error| error.to_string())?;
        rows.push(record.iter().map(|field| Some(field.to_owned())).collect());
    }
    Ok(rows)
}

/// Objects one behind the other, or in an array; columns are found by name.
fn objects(text: &str, columns: &[Column]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut add = |value: &Json| {
        rows.push(columns.iter().map(|column| written(value.get(&column.name)?)).collect());
    };
    for value in serde_json::Deserializer::from_str(text).into_iter::<Json>() {
        match value.map_err(|error| error.to_string())? {
            Json::Array(values) => values.iter().for_each(&mut add),
            value => add(&value),
        }
    }
    Ok(rows)
}

fn written(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, ty: Type) -> Column {
        Column { name: name.to_owned(), ty }
    }

    #[tokio::test]
    async fn only_what_is_allowed_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("lists");
        std::fs::create_dir(&inside).expect("a folder");
        std::fs::write(inside.join("a.csv"), "name,score\nmimikatz,7\n\"a,b\",x\n")
            .expect("a file");
        std::fs::write(folder.path().join("secret.csv"), "x").expect("a file");
        let sources = ExternalSources::allow(&[inside.display().to_string()]).expect("allowed");
        let columns = [column("name", Type::String), column("score", Type::Long)];
        let properties = [("ignoreFirstRecord".to_owned(), "true".to_owned())];
        let uri = |path: &str| vec![inside.join(path).display().to_string()];
        let arrays = sources.rows(&uri("a.csv"), &properties, &columns).await.expect("rows");
        let shown = format!("{arrays:?}");
        assert!(
            shown.contains("mimikatz") && shown.contains("a,b") && shown.contains('7'),
            "{shown}"
        );
        assert_eq!(arrays[1].null_count(), 1, "what is no number is null");
        for refused in ["../secret.csv", "missing.csv", "/etc/hostname"] {
            let error = sources.rows(&uri(refused), &[], &columns).await.expect_err("refused");
            assert!(error.to_string().contains("does not allow"), "{error}");
        }
        let none = ExternalSources::default();
        let error = none.rows(&uri("a.csv"), &[], &columns).await.expect_err("refused");
        assert!(error.to_string().contains("allows no sources"), "{error}");
    }

    #[test]
    fn addresses_are_compared_by_their_parts() {
        let written = ["https://lists.example/feeds".to_owned()];
        let sources = ExternalSources::allow(&written).expect("allowed");
        let allows = |url: &str| sources.allows(&Url::parse(url).expect("an address"));
        assert!(allows("https://lists.example/feeds/a.csv"));
        assert!(allows("https://lists.example:443/feeds"));
        for url in [
            "http://lists.example/feeds/a.csv",
            "https://lists.example/feeds-of-others",
            "https://lists.example.evil.example/feeds/a",
            "https://lists.example@evil.example/feeds/a",
            "https://u@lists.example/feeds/a",
            "https://lists.example/feeds/../secret",
            "https://lists.example:8443/feeds/a",
        ] {
            assert!(!allows(url), "{url}");
        }
    }

    #[test]
    fn formats() {
        let columns = [column("a", Type::String), column("b", Type::Long)];
        let some = |values: &[&str]| values.iter().map(|v| Some((*v).to_owned())).collect::<Row>();
        let read = |text: &str, format: &str| read(text, format, false, &columns).expect("rows");
        assert_eq!(read("x\ty\n", "tsv"), [some(&["x", "y"])]);
        assert_eq!(read("one line, whole\n", "txt"), [some(&["one line, whole"])]);
        assert_eq!(
            read("{\"b\":2,\"a\":\"x\"}\n{\"a\":null}", "json"),
            [some(&["x", "2"]), vec![None, None]]
        );
        assert_eq!(read("[{\"a\":\"y\",\"b\":3}]", "multijson"), [some(&["y", "3"])]);
        assert!(super::read("x", "parquet", false, &columns).is_err());
        assert!(super::read("{", "json", false, &columns).is_err());
    }
}
