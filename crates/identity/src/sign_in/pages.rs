//! The pages: plain HTML that works without script, on a phone, and with a screen reader.

use super::flow::{Flow, Goal};
use super::request::Ask;
use crate::SignInError;
use crate::directory::{Account, Client};
use crate::resource::PERMISSIONS;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::sync::LazyLock;

const STYLE: &str = include_str!("pages.css");
/// Sends a form on at once; without script there is its button.
const SUBMIT: &str = "document.forms[0].submit()";

static STYLE_HASH: LazyLock<String> = LazyLock::new(|| hash(STYLE));
static SUBMIT_HASH: LazyLock<String> = LazyLock::new(|| hash(SUBMIT));

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A page. `leads_to` is where its form may lead besides this server; `body` is HTML.
fn page(
    status: StatusCode,
    title: &str,
    body: &str,
    leads_to: Option<&str>,
    script: bool,
) -> Response {
    let tail = if script { format!("<script>{SUBMIT}</script>") } else { String::new() };
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title} – Vigie</title>\
         <style>{STYLE}</style></head><body><main>\
         <p class=\"brand\" aria-hidden=\"true\">Vigie</p><h1>{title}</h1>{body}</main>{tail}\
         </body></html>",
        title = escape(title)
    );
    let mut policy = format!(
        "default-src 'none'; style-src {}; base-uri 'none'; frame-ancestors 'none'; form-action \
         'self' {}",
        *STYLE_HASH,
        leads_to.unwrap_or_default()
    );
    if script {
        let _ = write!(policy, "; script-src {}", *SUBMIT_HASH);
    }
    let mut response = (status, html).into_response();
    let headers = response.headers_mut();
    let set = |headers: &mut http::HeaderMap, name: header::HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(headers, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(headers, header::X_FRAME_OPTIONS, "DENY");
    set(headers, header::REFERRER_POLICY, "no-referrer");
    set(headers, header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    if let Ok(policy) = HeaderValue::from_str(policy.trim()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// A page of the way, whose form carries it.
fn form_page(ask: &Ask, flow: &Flow, title: &str, action: &str, fields: &str) -> Response {
    let body = format!(
        "<form method=\"post\" action=\"/{}/{action}\" autocomplete=\"on\">\
         <input type=\"hidden\" name=\"ctx\" value=\"{}\">{fields}</form>",
        escape(&ask.tenant_name),
        flow.seal(ask)
    );
    let leads_to = flow.leads_to();
    page(StatusCode::OK, title, &body, leads_to.as_deref(), false)
}

/// What went wrong, where a screen reader says it first.
fn alert(error: Option<&SignInError>) -> String {
    let text = match error.map(|error| error.number) {
        None => return String::new(),
        Some(50053) => {
            "Your account is temporarily locked to prevent unauthorized use. Try again later."
        }
        Some(50055) => "Your password has expired. Ask your administrator for a new one.",
        Some(50057) => "Your account is disabled. Contact your administrator.",
        Some(53003) => "You cannot access this right now. A policy of your organization blocks it.",
        Some(50074) => "That code didn't work. Enter the code that your app shows now.",
        Some(_) => "Your account or password is incorrect.",
    };
    format!("<p class=\"error\" id=\"error\" role=\"alert\">{text}</p>")
}

/// Attributes of the field that the alert is about.
fn about_alert(alert: &str) -> &'static str {
    if alert.is_empty() { "" } else { " aria-invalid=\"true\" aria-describedby=\"error\"" }
}

pub fn sign_in(
    ask: &Ask,
    flow: &Flow,
    name: Option<&str>,
    error: Option<&SignInError>,
) -> Response {
    let name = escape(name.unwrap_or_default());
    let (name_focus, password_focus) =
        if name.is_empty() { (" autofocus", "") } else { ("", " autofocus") };
    let alert = alert(error);
    let about = about_alert(&alert);
    let fields = format!(
        "{alert}<label for=\"login\">Account</label>\
         <input id=\"login\" name=\"login\" type=\"email\" autocomplete=\"username\" \
         placeholder=\"name@domain\" value=\"{name}\" required{name_focus}>\
         <label for=\"passwd\">Password</label>\
         <input id=\"passwd\" name=\"passwd\" type=\"password\" autocomplete=\"current-password\" \
         required{password_focus}{about}>\
         <p class=\"buttons\"><button type=\"submit\">Sign in</button></p>"
    );
    form_page(ask, flow, "Sign in", "login", &fields)
}

pub fn second_factor(
    ask: &Ask,
    flow: &Flow,
    account: &Account,
    error: Option<&SignInError>,
) -> Response {
    let alert = alert(error);
    let about = about_alert(&alert);
    let fields = format!(
        "<p class=\"who\">{}</p>{alert}<label for=\"otc\">Code from your authenticator app</label>\
         <input id=\"otc\" name=\"otc\" inputmode=\"numeric\" autocomplete=\"one-time-code\" \
         maxlength=\"12\" required autofocus{about}>\
         <p class=\"buttons\"><button type=\"submit\">Verify</button></p>",
        escape(&account.principal_name)
    );
    form_page(ask, flow, "Enter code", "mfa", &fields)
}

pub fn choose(ask: &Ask, flow: &Flow, account: &Account) -> Response {
    let fields = format!(
        "<p class=\"buttons column\">\
         <button type=\"submit\" name=\"decision\" value=\"this\">{}</button>\
         <button type=\"submit\" name=\"decision\" value=\"other\" class=\"quiet\">\
         Use another account</button></p>",
        escape(&account.principal_name)
    );
    form_page(ask, flow, "Pick an account", "select", &fields)
}

/// Who asks, for what, and who is asked.
pub fn consent(
    ask: &Ask,
    flow: &Flow,
    client: &Client,
    account: &Account,
    administrator: bool,
) -> Response {
    let Some(consent) = &flow.consent else { return error(ask, &SignInError::internal()) };
    let mut list = String::new();
    let describe = |name: &str| {
        let known = PERMISSIONS.iter().find(|permission| permission.name == name);
        known.map_or_else(|| name.to_owned(), |permission| permission.display_name.clone())
    };
    for scope in &consent.scopes {
        let text = escape(&describe(scope));
        let _ = write!(list, "<li>{text} <code>{}</code></li>", escape(scope));
    }
    for role in &consent.roles {
        let text = escape(&describe(role));
        let _ = write!(
            list,
            "<li>{text}, at any time and without a signed-in user <code>{}</code></li>",
            escape(role)
        );
    }
    if list.is_empty() {
        list.push_str("<li>Sign you in and read your profile</li>");
    }
    let everybody = match (consent.for_all, administrator) {
        (true, _) => "<p>You consent for everybody in your organization.</p>".to_owned(),
        (false, true) => "<p class=\"check\"><input type=\"checkbox\" id=\"everybody\" \
            name=\"everybody\" value=\"1\"><label for=\"everybody\">Consent on behalf of your \
            organization</label></p>"
            .to_owned(),
        (false, false) => String::new(),
    };
    let fields = format!(
        "<p class=\"who\">{}</p><p><strong>{}</strong> of {} asks for permission to:</p>\
         <ul>{list}</ul>{everybody}\
         <p class=\"small\">Accept only if you know and trust the application. Its id is \
         <code>{}</code>.</p><p class=\"buttons\">\
         <button type=\"submit\" name=\"decision\" value=\"cancel\" class=\"quiet\">Cancel</button>\
         <button type=\"submit\" name=\"decision\" value=\"accept\">Accept</button></p>",
        escape(&account.principal_name),
        escape(&client.display_name),
        escape(&client.owner_name),
        client.app_id
    );
    form_page(ask, flow, "Permissions requested", "consent", &fields)
}

/// Only an administrator can consent.
pub fn needs_administrator(ask: &Ask, flow: &Flow, client: &Client, account: &Account) -> Response {
    let refused = SignInError::admin_consent_needed();
    let back = match &flow.goal {
        Goal::Authorize(authorization) => {
            let response = ask.refuse_back(authorization, &refused);
            let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
            location.map_or(String::new(), |location| {
                format!("<p><a href=\"{}\">Return to the application</a></p>", escape(location))
            })
        }
        _ => String::new(),
    };
    let body = format!(
        "<p class=\"who\">{}</p><p role=\"alert\"><strong>{}</strong> needs permission to access \
         resources in your organization that only an administrator can grant. Ask an administrator \
         to grant permission to this application.</p>{back}<p class=\"small\">{}</p>",
        escape(&account.principal_name),
        escape(&client.display_name),
        escape(&ask.description(&refused))
    );
    page(StatusCode::OK, "Need admin approval", &body, None, false)
}

pub fn device_code(ask: &Ask, flow: &Flow, error: Option<&str>) -> Response {
    let alert = error.map_or(String::new(), |text| {
        format!("<p class=\"error\" id=\"error\" role=\"alert\">{}</p>", escape(text))
    });
    let about = about_alert(&alert);
    let fields = format!(
        "{alert}<label for=\"otc\">Code shown by your app or device</label>\
         <input id=\"otc\" name=\"otc\" autocomplete=\"off\" autocapitalize=\"characters\" \
         spellcheck=\"false\" maxlength=\"20\" required autofocus{about}>\
         <p class=\"small\">Enter only a code that your own app or device shows. Nobody else has a \
         reason to send you one.</p>\
         <p class=\"buttons\"><button type=\"submit\">Next</button></p>"
    );
    form_page(ask, flow, "Enter code", "oauth2/deviceauth", &fields)
}

pub fn confirm_device(
    ask: &Ask,
    flow: &Flow,
    client: &Client,
    account: &Account,
    address: &str,
) -> Response {
    let fields = format!(
        "<p class=\"who\">{}</p><p>Are you trying to sign in to <strong>{}</strong> of {}?</p>\
         <p>The device that asks is at the address <code>{}</code>. Continue only if it is \
         yours.</p><p class=\"buttons\">\
         <button type=\"submit\" name=\"decision\" value=\"cancel\" class=\"quiet\">Cancel</button>\
         <button type=\"submit\" name=\"decision\" value=\"continue\">Continue</button></p>",
        escape(&account.principal_name),
        escape(&client.display_name),
        escape(&client.owner_name),
        escape(address)
    );
    form_page(ask, flow, "Sign in on another device", "device", &fields)
}

/// A page that leads nowhere.
pub fn message(title: &str, text: &str) -> Response {
    let body = format!("<p role=\"status\">{}</p>", escape(text));
    page(StatusCode::OK, title, &body, None, false)
}

/// An error that can be sent to no client.
pub fn error(ask: &Ask, error: &SignInError) -> Response {
    let body = format!(
        "<p class=\"error\" role=\"alert\">AADSTS{}: {}</p><p class=\"small\">Request id: {}<br>\
         Correlation id: {}<br>Timestamp: {}</p>",
        error.number,
        escape(&error.text),
        ask.trace,
        ask.correlation,
        ask.timestamp()
    );
    let mut response =
        page(error.status, "Sorry, but we're having trouble signing you in", &body, None, false);
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// An answer that travels as a form (OAuth 2.0 Form Post Response Mode).
pub fn form_post(uri: &str, members: &[(&str, &str)]) -> Response {
    let mut fields = String::new();
    for (name, value) in members {
        let value = escape(value);
        let _ = write!(fields, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
    }
    let body = format!(
        "<form method=\"post\" action=\"{}\">{fields}<p>You go on to the application.</p>\
         <p class=\"buttons\"><button type=\"submit\">Continue</button></p></form>",
        escape(uri)
    );
    page(StatusCode::OK, "Signing in", &body, Some(&super::redirect::origin(uri)), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reflected_is_escaped() {
        assert_eq!(escape("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
    }
}
