//! Which requests come from the dashboard's own pages. Owns the cookie's name and attributes, the check of where a request comes
//! from, and the names that this host answers to; not what a session opens.
//!
//! Invariant: the cookie of a request that another site may have caused is not looked at, whatever its method.

use axum::http::{HeaderMap, Method, header};
use std::net::{IpAddr, SocketAddr};

/// What every request but a GET must carry: no form and no simple request of another site can.
const OWN_HEADER: &str = "x-trawl-ui";

/// Of an origin that names none.
const HTTPS_PORT: u16 = 443;

/// Where the dashboard is.
#[derive(Clone, Debug)]
pub struct Site {
    /// Whether this host speaks TLS itself.
    pub is_tls: bool,
    /// Where it listens, with the port that the system gave it.
    pub listen: SocketAddr,
    /// Names that it answers to beside its address.
    pub hosts: Vec<String>,
    /// `https://name[:port]` of a proxy in front of it.
    pub origin: Option<String>,
}

impl Site {
    fn is_secure(&self) -> bool {
        self.is_tls || self.origin.is_some()
    }

    /// The cookie's name; none where a cookie would cross a network in clear, so that nobody may log in. It has the port: browsers
    /// send a cookie to every port of a name, and two hosts there would end each other's sessions.
    #[must_use]
    pub fn cookie_name(&self) -> Option<String> {
        let port = match self.origin.as_deref() {
            Some(origin) => of_origin(origin).and_then(|host| host.port).unwrap_or(HTTPS_PORT),
            None => self.listen.port(),
        };
        match (self.is_secure(), self.listen.ip().is_loopback()) {
            (true, _) => Some(format!("__Host-trawl-{port}")),
            // Browsers do not take the prefix on http://localhost.
            (false, true) => Some(format!("trawl-loopback-{port}")),
            (false, false) => None,
        }
    }

    /// `Set-Cookie` for a session's id.
    #[must_use]
    pub fn set_cookie(&self, id: &str) -> Option<String> {
        let secure = if self.is_secure() { "; Secure" } else { "" };
        Some(format!("{}={id}; Path=/; HttpOnly; SameSite=Strict{secure}", self.cookie_name()?))
    }

    /// `Set-Cookie` that removes it.
    #[must_use]
    pub fn clear_cookie(&self) -> Option<String> {
        Some(format!("{}; Max-Age=0", self.set_cookie("")?))
    }

    /// Whether `Host` names this host. Another name may be one that somebody lets point here to read answers as his own site's.
    #[must_use]
    pub fn is_own_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Some(host) = host.to_str().ok().and_then(authority) else { return false };
        let of_proxy = self.origin.as_deref().and_then(of_origin).map(|host| host.name);
        let mut own = of_proxy.into_iter().chain(self.hosts.iter().map(String::as_str));
        if own.any(|own| own.eq_ignore_ascii_case(host.name)) {
            return true;
        }
        let listen = self.listen.ip();
        match host.address {
            Some(address) => listen.is_unspecified() || address.to_canonical() == listen.to_canonical(),
            // Browsers resolve this name themselves.
            None => {
                let is_local = listen.is_loopback() || listen.is_unspecified();
                is_local && host.name.eq_ignore_ascii_case("localhost")
            }
        }
    }

    /// Whether a page of this host caused the request.
    #[must_use]
    pub fn is_own_page(&self, method: &Method, headers: &HeaderMap) -> bool {
        let is_same = match one(headers, "sec-fetch-site") {
            Some(site) => site == Some("same-origin"),
            None => self.is_own_origin(headers),
        };
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        is_same && (!changes || one(headers, OWN_HEADER) == Some(Some("1"))) && self.is_own_host(headers)
    }

    fn is_own_origin(&self, headers: &HeaderMap) -> bool {
        let (Some(Some(origin)), Some(Some(host))) = (one(headers, "origin"), one(headers, "host")) else {
            return false;
        };
        let scheme = if self.is_tls { "https" } else { "http" };
        self.origin.as_deref() == Some(origin)
            || origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) == Some(host)
    }

    /// The id in the request's cookie, if it may be looked at. Two cookies of the name are none: one of them may be somebody else's.
    #[must_use]
    pub fn session_id<'a>(&self, method: &Method, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = self.cookie_name()?;
        if !self.is_own_page(method, headers) {
            return None;
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        let cookies =
            cookies.flat_map(|cookies| cookies.split(';')).filter_map(|one| one.trim().split_once('='));
        let mut ids = cookies.filter(|(found, _)| *found == name).map(|(_, id)| id);
        match (ids.next(), ids.next()) {
            (Some(id), None) => Some(id),
            _ => None,
        }
    }
}

/// Whom a request asks.
struct Authority<'a> {
    name: &'a str,
    /// What the name says, if it is an address.
    address: Option<IpAddr>,
    port: Option<u16>,
}

/// A host with its port, as RFC 9110 writes them in `Host`; none of anything else, user information included.
fn authority(text: &str) -> Option<Authority<'_>> {
    let (name, address, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (name, rest) = text.split_once(']')?;
            (name, Some(IpAddr::V6(name.parse().ok()?)), rest)
        }
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (name, name.parse().ok().map(IpAddr::V4), rest)
        }
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if address.is_none() && (name.is_empty() || !name.bytes().all(is_name)) {
        return None;
    }
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
        _ => return None,
    };
    Some(Authority { name, address, port })
}

/// The host in `ui.origin`.
fn of_origin(origin: &str) -> Option<Authority<'_>> {
    origin.strip_prefix("https://").and_then(authority)
}

/// A header's value: none if it is absent, and no text if there are two of it or it is none.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { None } else { first.to_str().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn site(is_tls: bool, listen: &str) -> Site {
        let hosts = vec!["trawl.example.net".to_owned()];
        Site { is_tls, listen: listen.parse().unwrap(), hosts, origin: None }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn a_cookie_is_looked_at_for_requests_of_the_own_page_alone() {
        let site = site(false, "127.0.0.1:8080");
        let own = [("host", "127.0.0.1:8080"), ("cookie", "a=b; trawl-loopback-8080=x")];
        let (get, post) = (Method::GET, Method::POST);
        type Row<'a> = (&'a Method, &'a [(&'a str, &'a str)], bool);
        let table: &[Row<'_>] = &[
            (&get, &[("sec-fetch-site", "same-origin")], true),
            (&get, &[("sec-fetch-site", "same-site")], false),
            (&get, &[("sec-fetch-site", "cross-site")], false),
            // A typed link leads to a page, which then asks as the page.
            (&get, &[("sec-fetch-site", "none")], false),
            (&get, &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&get, &[], false),
            (&get, &[("origin", "http://127.0.0.1:8080")], true),
            (&get, &[("origin", "http://127.0.0.1:9090")], false),
            (&get, &[("origin", "https://127.0.0.1:8080")], false),
            (&get, &[("origin", "null")], false),
            (&get, &[("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:8080")], false),
            (&post, &[("sec-fetch-site", "same-origin")], false),
            (&post, &[("sec-fetch-site", "same-origin"), ("x-trawl-ui", "1")], true),
            (&post, &[("sec-fetch-site", "same-origin"), ("x-trawl-ui", "0")], false),
            (&post, &[("sec-fetch-site", "same-site"), ("x-trawl-ui", "1")], false),
            (&post, &[("x-trawl-ui", "1")], false),
            (&post, &[("origin", "http://127.0.0.1:8080"), ("x-trawl-ui", "1")], true),
            (&get, &[("sec-fetch-site", "same-origin"), ("cookie", "trawl-loopback-8080=y")], false),
            // Of another trawl on this host.
            (&get, &[("sec-fetch-site", "same-origin"), ("cookie", "trawl-loopback-9090=y")], true),
            (&get, &[("sec-fetch-site", "same-origin"), ("host", "evil.example")], false),
        ];
        for (method, more, is_looked_at) in table {
            let all: Vec<(&'static str, &str)> =
                own.iter().copied().chain(more.iter().map(|(name, value)| (leak(name), *value))).collect();
            let headers = headers(&all);
            assert_eq!(site.session_id(method, &headers) == Some("x"), *is_looked_at, "{method} {more:?}");
        }
    }

    fn leak(name: &str) -> &'static str {
        ["sec-fetch-site", "origin", "x-trawl-ui", "cookie", "host"]
            .into_iter()
            .find(|one| *one == name)
            .unwrap()
    }

    #[test]
    fn a_host_answers_to_its_address_and_the_names_that_are_configured() {
        let is_own = |site: &Site, host: &str| site.is_own_host(&headers(&[("host", host)]));
        let local = site(false, "127.0.0.1:8080");
        for host in ["127.0.0.1:8080", "127.0.0.1", "localhost:8080", "TRAWL.example.net:1"] {
            assert!(is_own(&local, host), "{host}");
        }
        for host in [
            "rebound.example:8080",
            "127.0.0.1.evil.example",
            "192.0.2.1",
            "",
            "[::1]:8080",
            "a@127.0.0.1",
            "127.0.0.1:1@evil",
            "127.0.0.1:@evil",
            "127.0.0.1:80@evil:80",
            "127.0.0.1:",
            "127.0.0.1:+1",
            "127.0.0.1:65536",
            "127.0.0.1:80:80",
            "127.0.0.1/evil",
            "127.0.0.1 ",
            "localhost:1@evil",
            "[127.0.0.1]",
            "127.0.0.1]",
            "127.1",
        ] {
            assert!(!is_own(&local, host), "{host}");
        }
        let v6 = site(false, "[::1]:8080");
        for (host, is_its) in
            [("[::1]", true), ("[::1]:8080", true), ("::1", false), ("[[::1]]", false), ("[::1]x:1", false)]
        {
            assert_eq!(is_own(&v6, host), is_its, "{host}");
        }
        assert!(!local.is_own_host(&HeaderMap::new()));
        assert!(!local.is_own_host(&headers(&[("host", "127.0.0.1"), ("host", "127.0.0.1")])));
        let everywhere = site(true, "[::]:443");
        assert!(is_own(&everywhere, "192.0.2.7") && is_own(&everywhere, "[2001:db8::1]:443"));
        assert!(!is_own(&everywhere, "rebound.example"));
        let behind = Site { origin: Some("https://pcaps.example.org:8443".to_owned()), ..local };
        assert!(is_own(&behind, "pcaps.example.org:8443") && !is_own(&behind, "example.org"));
    }

    #[test]
    fn the_cookie_is_secure_where_it_can_be_and_there_is_none_in_clear_over_a_network() {
        let tls = site(true, "192.0.2.1:443");
        let set = "__Host-trawl-443=x; Path=/; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(tls.set_cookie("x").as_deref(), Some(set));
        let local = site(false, "[::1]:8080");
        let set = "trawl-loopback-8080=x; Path=/; HttpOnly; SameSite=Strict";
        assert_eq!(local.set_cookie("x").as_deref(), Some(set));
        assert_eq!(site(false, "192.0.2.1:80").cookie_name(), None);
        let behind = Site { origin: Some("https://a.example".to_owned()), ..site(false, "192.0.2.1:80") };
        assert_eq!(behind.cookie_name().as_deref(), Some("__Host-trawl-443"));
    }

    #[test]
    fn two_hosts_under_one_name_have_cookies_of_their_own() {
        let [first, second] = ["127.0.0.1:8080", "127.0.0.1:9090"].map(|listen| site(false, listen));
        let both = format!(
            "{}; {}",
            first.set_cookie("x").unwrap().split_once(';').unwrap().0,
            second.set_cookie("y").unwrap().split_once(';').unwrap().0
        );
        let headers = headers(&[("host", "localhost"), ("sec-fetch-site", "same-origin"), ("cookie", &both)]);
        let ids = [&first, &second].map(|site| site.session_id(&Method::GET, &headers));
        assert_eq!(ids, [Some("x"), Some("y")]);
        let at = |listen: &str| site(true, listen).cookie_name();
        assert_ne!(at("192.0.2.1:443"), at("192.0.2.1:8443"));
        let behind = |origin: &str| Site { origin: Some(origin.to_owned()), ..site(false, "127.0.0.1:80") };
        assert_ne!(behind("https://a.example").cookie_name(), behind("https://a.example:8443").cookie_name());
    }
}
