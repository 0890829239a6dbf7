//! `vigie hunt`

use crate::api::ApiOptions;
use crate::folder::Local;
use crate::output::{self, Format, printable};
use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::io::{BufRead as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vigie_contract::clock::Clock;
use vigie_contract::function::SavedFunction;
use vigie_hunting::lake::{Lake, LakeConfig, LakeError};
use vigie_hunting::{
    Database, Engine, EngineConfig, ExternalSources, Limits, QueryError, ResultTable,
    SavedFunctions, Stage,
};

/// The tenant of a data folder that no server has used.
pub const OFFLINE_TENANT: Uuid = Uuid::from_u128(1);

#[derive(Args)]
pub struct HuntOptions {
    /// With --data the query runs on that folder: without any server, or by the one that serves it
    #[command(flatten)]
    api: ApiOptions,
    /// The query, a .kql file, or `-` for standard input
    #[arg(required_unless_present = "serve_stdio")]
    query: Option<String>,
    #[arg(long, short, value_enum, default_value_t = HuntFormat::Table)]
    output: HuntFormat,
    /// The present time for the query, like 2020-10-22T10:00:00Z; without a server only
    #[arg(long, value_name = "TIME")]
    now: Option<DateTime<Utc>>,
    /// Print a stage of the query's way instead of running it
    #[arg(long, value_enum)]
    show: Option<Shown>,
    /// Folder, or beginning of an http(s) address, that the query may read with externaldata; without
    /// a server only
    #[arg(long, value_name = "SOURCE")]
    allow_external: Vec<String>,
    /// Function that the query may call, as a YAML file of 'vigie function add'; without a server only
    #[arg(long, value_name = "FILE")]
    function: Vec<PathBuf>,
    /// Answer queries on standard input, one JSON object a line
    #[arg(long, hide = true)]
    serve_stdio: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HuntFormat {
    Table,
    Json,
    Csv,
    Parquet,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shown {
    Tokens,
    Syntax,
    Plan,
    Logical,
    Physical,
}

pub async fn run(options: HuntOptions) -> Result<()> {
    let clock = Clock::default();
    if let Some(now) = options.now {
        clock.advance(now - clock.now());
    }
    let functions = functions(&options.function)?;
    let external = ExternalSources::allow(&options.allow_external).map_err(anyhow::Error::msg)?;
    let mut config = EngineConfig::new(clock.clone());
    config.external = external;
    if options.serve_stdio {
        let database = match &options.api.folder.data {
            Some(folder) => lake(folder, clock.clone(), &options.api).await?,
            None => Database::Empty,
        };
        return serve_stdio(&Engine::new(config)?, &extended(database, functions)).await;
    }
    let query = text(options.query.as_deref().unwrap_or_default())?;
    if let Some(shown) = options.show {
        let stage = match shown {
            Shown::Tokens => Stage::Tokens,
            Shown::Syntax => Stage::Syntax,
            Shown::Plan => Stage::Plan,
            Shown::Logical => Stage::Logical,
            Shown::Physical => Stage::Physical,
        };
        let database = match &options.api.folder.data {
            Some(folder) => lake(folder, clock.clone(), &options.api).await?,
            None => Database::Empty,
        };
        let database = extended(database, functions);
        let engine = Engine::new(config)?;
        let explained = engine.explain(&database, &query, stage).await;
        print!("{}", explained.map_err(|error| rejected(error, &query))?);
        return Ok(());
    }
    if let Some(folder) = &options.api.folder.data {
        anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
        if let Some((lake, tenant)) = open_folder(folder, clock.clone(), &options.api).await? {
            let database = Database::Lake { lake: lake.clone(), tenant };
            let database = extended(database, functions);
            return offline(lake, &database, &query, options.output, config).await;
        }
    }
    anyhow::ensure!(options.now.is_none(), "--now: a server has its own clock");
    let own = options.function.is_empty();
    anyhow::ensure!(own, "--function: a server is told by 'vigie function add'");
    let own = options.allow_external.is_empty();
    anyhow::ensure!(own, "--allow-external: a server is told by 'vigie serve --allow-external'");
    online(&options, &query).await
}

/// Each checked beside those before it.
fn functions(files: &[PathBuf]) -> Result<Option<SavedFunctions>> {
    let mut all: Vec<SavedFunction> = Vec::new();
    let of = |all: &[SavedFunction]| {
        SavedFunctions::new(all.iter().map(|f| (&*f.name, &*f.parameters, &*f.query)))
    };
    for file in files {
        let new = crate::function::read(file)?;
        let checked = of(&all).check(&new.name, &new.parameters, &new.query);
        checked
            .map_err(|error| rejected(error, &new.query))
            .with_context(|| file.display().to_string())?;
        all.push(new);
    }
    Ok((!all.is_empty()).then(|| of(&all)))
}

fn extended(database: Database, functions: Option<SavedFunctions>) -> Database {
    match functions {
        Some(functions) => database.with(functions),
        None => database,
    }
}

/// The rows of a folder that no server serves.
async fn lake(folder: &Path, clock: Clock, api: &ApiOptions) -> Result<Database> {
    let opened = open_folder(folder, clock, api).await?;
    let (lake, tenant) = opened.with_context(|| format!("{} is being served", folder.display()))?;
    Ok(Database::Lake { lake, tenant })
}

fn text(argument: &str) -> Result<String> {
    if argument == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    if argument.ends_with(".kql") && Path::new(argument).exists() {
        return std::fs::read_to_string(argument)
            .with_context(|| format!("cannot read {argument}"));
    }
    Ok(argument.to_owned())
}

fn rejected(error: QueryError, query: &str) -> anyhow::Error {
    match error {
        QueryError::Rejected(diagnostics) => {
            let lines: Vec<String> = diagnostics.iter().map(|d| d.display(query)).collect();
            anyhow::anyhow!("{}", lines.join("\n"))
        }
        other => other.into(),
    }
}

/// Opens a folder's lake and finds whose rows are in it; `None` while a server serves the folder.
pub async fn open_folder(
    folder: &Path,
    clock: Clock,
    api: &ApiOptions,
) -> Result<Option<(Lake, Uuid)>> {
    let mut config = LakeConfig::new(folder.join("lake"), clock);
    // Recordings are of any age.
    config.retention = None;
    let lake = match Lake::open(config).await {
        Ok(lake) => lake,
        Err(LakeError::Locked { .. }) if Local::exists(folder) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if let Some(tenant) = api.tenant_id()? {
        return Ok(Some((lake, tenant)));
    }
    let mut tenants: Vec<Uuid> = Vec::new();
    for entry in std::fs::read_dir(folder.join("lake"))?.flatten() {
        let tenant = entry.file_name().to_str().and_then(|name| Uuid::try_parse(name).ok());
        tenants.extend(tenant);
    }
    let tenant = match tenants.as_slice() {
        [] => OFFLINE_TENANT,
        [only] => *only,
        _ => bail!("{} holds rows of several tenants; choose with --tenant", folder.display()),
    };
    Ok(Some((lake, tenant)))
}

async fn offline(
    lake: Lake,
    database: &Database,
    query: &str,
    format: HuntFormat,
    config: EngineConfig,
) -> Result<()> {
    let engine = Engine::new(config)?;
    let limits = Limits { rows: usize::MAX >> 1, bytes: usize::MAX >> 2, ..Limits::default() };
    let result = engine.run(database, query, &limits).await;
    let result = result.map_err(|error| rejected(error, query))?;
    for table in &result.tables {
        write(table, format)?;
    }
    lake.close().await?;
    Ok(())
}

fn write(table: &ResultTable, format: HuntFormat) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match format {
        HuntFormat::Json => table.write_json_lines(&mut out)?,
        HuntFormat::Csv => table.write_csv(&mut out)?,
        HuntFormat::Parquet => {
            drop(out);
            return Ok(table.write_parquet(std::io::stdout())?);
        }
        HuntFormat::Table => {
            let mut printed = comfy_table::Table::new();
            printed.load_style(comfy_table::presets::NOTHING);
            printed.set_header(table.columns.iter().map(|column| printable(&column.name)));
            for row in table.plain_rows() {
                printed.add_row(row.iter().map(|cell| printable(cell)));
            }
            writeln!(out, "{printed}")?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn online(options: &HuntOptions, query: &str) -> Result<()> {
    let client = options.api.client()?;
    let answer = client.post("/api/advancedqueries/run", &json!({ "Query": query })).await?;
    let columns: Vec<&str> = (answer["Schema"].as_array().into_iter().flatten())
        .filter_map(|column| column["Name"].as_str())
        .collect();
    let rows: Vec<Value> = answer["Results"].as_array().cloned().unwrap_or_default();
    let format = match options.output {
        HuntFormat::Table => Format::Table,
        HuntFormat::Json => {
            let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
            return Ok(writeln!(std::io::stdout().lock(), "{}", lines.join("\n"))?);
        }
        HuntFormat::Csv => Format::Csv,
        HuntFormat::Parquet => bail!("Parquet is written with --data only"),
    };
    output::print(&rows, &columns, format)
}

/// One JSON object a line in, one out.
async fn serve_stdio(engine: &Engine, hunting: &Database) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        println!("{}", engine.answer(&line?, hunting).await);
        std::io::stdout().flush()?;
    }
    Ok(())
}
