//! Which web pages may talk to the server.

use std::net::IpAddr;

use super::reader::Reader;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    allowed_origins: Vec<String>,
    loopback_origins: bool,
}

impl Http {
    /// With `dev`, pages that were served from this machine may always talk to the server.
    pub(super) fn read(from: &mut Reader, dev: bool) -> Self {
        Self {
            allowed_origins: from.texts(
                "http.allowed_origins",
                "origins as browsers send them, such as \"https://app.example.com\": a scheme, \
                 a host in lower case and, where it is not the scheme's own, a port",
                is_origin,
            ),
            loopback_origins: dev,
        }
    }

    /// Whether a page of this `Origin` may talk to the server.
    pub fn allows(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|allowed| allowed == origin)
            || (self.loopback_origins && is_loopback(origin))
    }
}

/// A text that a browser would never send allows nobody, and looks as if it did.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host, port)) = parts(text) else {
        return false;
    };
    let of_scheme = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let of_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:[]".contains(c);
    let own_port = match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    };
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(of_scheme)
        && !host.is_empty()
        && host.chars().all(of_host)
        && port.is_none_or(|port| port.parse::<u16>().is_ok() && Some(port) != own_port)
}

fn is_loopback(origin: &str) -> bool {
    let Some(("http" | "https", host, _)) = parts(origin) else {
        return false;
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Scheme, host (an IPv6 address with its brackets) and port.
fn parts(origin: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, rest) = origin.split_once("://")?;
    // The colons of an IPv6 address stand inside of brackets.
    let end_of_address = rest.rfind(']').map_or(0, |at| at + 1);
    match rest[end_of_address..].split_once(':') {
        Some((before, port)) => Some((scheme, &rest[..end_of_address + before.len()], Some(port))),
        None => Some((scheme, rest, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(allowed: &[&str], dev: bool) -> Http {
        Http {
            allowed_origins: allowed.iter().map(|&origin| origin.to_owned()).collect(),
            loopback_origins: dev,
        }
    }

    #[test]
    fn only_the_exact_origin_is_allowed() {
        let http = http(&["https://app.example.com"], false);
        assert!(http.allows("https://app.example.com"));
        for foreign in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://evil.example",
            "http://localhost:3000",
            "null",
            "",
        ] {
            assert!(!http.allows(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn a_page_from_this_machine_is_allowed_in_development() {
        let http = http(&[], true);
        for own in [
            "http://localhost:3000",
            "https://127.0.0.1",
            "http://[::1]:8080",
            "http://app.localhost",
        ] {
            assert!(http.allows(own), "{own:?}");
        }
        for foreign in [
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://evillocalhost",
            "http://[::1].evil.example",
            "ftp://localhost",
            "null",
        ] {
            assert!(!http.allows(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_a_mistake() {
        for right in [
            "https://a.example",
            "http://a.example:8080",
            "http://[::1]:3000",
            "capacitor://localhost",
        ] {
            assert!(is_origin(right), "{right:?}");
        }
        for wrong in [
            "*",
            "a.example",
            "https://",
            "https://a.example/",
            "https://a.example/path",
            "https://A.example",
            "https://a.example:443",
            "http://a.example:80",
            "https://a.example:",
            "https://*.example",
            "null",
        ] {
            assert!(!is_origin(wrong), "{wrong:?}");
        }
    }
}
