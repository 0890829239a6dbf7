//! Redirect URIs that are almost the registered ones.

use crate::damage::{PIECES, Random, damaged_text};
use crate::exchange::{Finding, Sent, owned};
use crate::scene::Scene;
use crate::support::*;
use crate::{NATIVE, SPA, WEB};
use std::collections::BTreeMap;

impl Scene {
    /// Redirect URIs that are almost the registered ones, at the endpoints that redirect.
    pub async fn try_redirect(&self, random: &mut Random) -> Result<String, Finding> {
        let all = [WEB, SPA, NATIVE].concat();
        let mut uri = random.of(&all).to_owned();
        match random.below(5) {
            0 => {}
            1 => uri = uri.replacen("localhost", &format!("localhost:{}", odd_port(random)), 1),
            2 => {
                let at = uri.find("//").map_or(0, |at| at + 2);
                uri.insert_str(at, random.of(PIECES));
            }
            _ => uri = damaged_text(random, &uri),
        }
        let state = damaged_text(random, "state");
        let (name, path) = match random.below(8) {
            0 => ("post_logout_redirect_uri", format!("/{}/oauth2/v2.0/logout", self.world.tenant)),
            1 => ("redirect_uri", format!("/{}/adminconsent", self.world.tenant)),
            _ => ("redirect_uri", format!("/{}/oauth2/v2.0/authorize", self.world.tenant)),
        };
        let scope = format!("{DEFENDER}/Machine.Read openid");
        let mut fields = owned(&[
            ("client_id", &self.redirected),
            (name, &uri),
            ("state", &state),
            (
                "response_type",
                random.of(&["code", "code", "id_token", "code id_token", "token", ""]),
            ),
            ("response_mode", random.of(&["", "query", "fragment", "form_post", "x"])),
            ("scope", &scope),
            ("nonce", "n"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("prompt", random.of(&["", "", "none", "login", "consent", "select_account", "x"])),
        ]);
        if random.one_in(3) {
            let at = random.below(fields.len());
            fields[at].1 = damaged_text(random, &fields[at].1.clone());
        }
        if random.one_in(4) {
            fields.push((
                random.of(&["login_hint", "domain_hint", "max_age", "claims"]).to_owned(),
                { random.of(PIECES).to_owned() },
            ));
        }
        let asked: BTreeMap<String, String> = fields.iter().cloned().collect();
        let (uri, state) = (asked[name].clone(), asked["state"].clone());
        let pairs: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut sent = match random.below(6) {
            0 if path.ends_with("authorize") => Sent::form(path, encode(&pairs).into_bytes()),
            _ => Sent::get(format!("{path}?{}", encode(&pairs))),
        };
        // The session goes with a sign-out, so that one is without it.
        if name == "redirect_uri" && !random.one_in(5) {
            sent.headers.push(("cookie", self.cookies.clone().into_bytes()));
        }
        let Some(reply) = self.send(random, &sent).await? else { return Ok("no HTTP".to_owned()) };
        let location = reply.header("location");
        if reply.headers.contains_key("location") {
            if reply.status != 303 {
                return Err(sent.finding(format!("a redirect by {}", reply.status)));
            }
            check_target(&sent, location, &uri)?;
            let back = fields_of_location(location);
            if !state.is_empty() && back.get("state") != Some(&state) {
                return Err(sent.finding(format!("the state was changed: {location}")));
            }
            let kind = if back.contains_key("error") { "error" } else { "success" };
            return Ok(format!("redirect with {kind}"));
        }
        if reply.text.contains("document.forms[0].submit()") {
            let (action, posted) = form_of(&reply.text);
            check_target(&sent, &action, &uri)?;
            if !state.is_empty() && posted.get("state") != Some(&state) {
                return Err(sent.finding(format!("the state was changed: {posted:?}")));
            }
            return Ok("redirect by form".to_owned());
        }
        Ok(format!("redirect page {}", reply.status))
    }
}

/// Members of a redirect, behind those that were registered with it.
pub fn fields_of_location(location: &str) -> BTreeMap<String, String> {
    let at = location.find('#').or_else(|| location.find('?'));
    let members = at.map_or("", |at| &location[at + 1..]);
    url::form_urlencoded::parse(members.as_bytes()).into_owned().collect()
}

/// A redirect must go where a browser finds a registered address: by what the URL Standard reads, not
/// by the text alone.
pub fn check_target(sent: &Sent, target: &str, asked: &str) -> Result<(), Finding> {
    let elsewhere = || sent.finding(format!("a redirect elsewhere: {target:?}"));
    if !target.starts_with(asked) || target.chars().any(char::is_control) {
        return Err(elsewhere());
    }
    let parsed = url::Url::parse(target).map_err(|_| elsewhere())?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(elsewhere());
    }
    let known = [WEB, SPA, NATIVE].concat().iter().any(|known| {
        let known = url::Url::parse(known).expect("registered");
        let loopback = matches!(known.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        known.scheme() == parsed.scheme()
            && known.host_str() == parsed.host_str()
            && (known.port() == parsed.port() || loopback)
            && known.path() == parsed.path()
            && known
                .query()
                .is_none_or(|fixed| parsed.query().is_some_and(|query| query.starts_with(fixed)))
    });
    if known { Ok(()) } else { Err(elsewhere()) }
}

pub fn odd_port(random: &mut Random) -> String {
    match random.below(6) {
        0 => String::new(),
        1 => "+80".to_owned(),
        2 => "-1".to_owned(),
        3 => "99999".to_owned(),
        4 => format!("80{}", random.of(PIECES)),
        _ => (random.0.u16(..)).to_string(),
    }
}
