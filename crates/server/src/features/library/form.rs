//! The form of an upload, `multipart/form-data` (RFC 7578).

use crate::edge::ApiError;
use axum::body::Bytes;
use http::{HeaderMap, header};

#[derive(Default)]
pub struct Form {
    pub name: String,
    pub content: Bytes,
    pub description: Option<String>,
    pub has_parameters: bool,
    pub parameters_description: String,
    pub override_if_exists: bool,
}

impl Form {
    /// Reads a form; the names of its parts are compared without regard to case, because the
    /// documentation itself writes them in two ways.
    pub async fn read(headers: &HeaderMap, body: Bytes) -> Result<Form, ApiError> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or_default());
        let boundary = boundary.map_err(|_| {
            let message = "The request body must be multipart/form-data";
            ApiError::new(415, "UnsupportedMediaType", message)
        })?;
        let stream = futures::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
        let mut parts = multer::Multipart::new(stream, boundary);
        let mut form = Form::default();
        let mut has_file = false;
        let wrong = |error: multer::Error| ApiError::body(format!("bad form: {error}"));
        while let Some(part) = parts.next_field().await.map_err(wrong)? {
            let name = part.name().unwrap_or_default().to_ascii_lowercase();
            if name == "file" {
                form.name = part.file_name().unwrap_or_default().to_owned();
                form.content = part.bytes().await.map_err(wrong)?;
                has_file = true;
                continue;
            }
            let text = part.text().await.map_err(wrong)?;
            match name.as_str() {
                "description" => form.description = Some(text).filter(|text| !text.is_empty()),
                "parametersdescription" => form.parameters_description = text,
                "hasparameters" => form.has_parameters = flag("HasParameters", &text)?,
                "overrideifexists" => form.override_if_exists = flag("OverrideIfExists", &text)?,
                // Clients send parts of their own.
                _ => {}
            }
        }
        if !has_file {
            return Err(ApiError::body("File: missing"));
        }
        Ok(form)
    }
}

fn flag(name: &str, text: &str) -> Result<bool, ApiError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        other => Err(ApiError::body(format!("{name}: true or false is expected, not '{other}'"))),
    }
}
