//! Where a server is.

use std::{fmt, str::FromStr, sync::Arc};

use awc::http::Uri;

const SOCKET_PATH: &str = "/connection/websocket";

/// The address of a server, as `--url` names it: `http://host[:port][/prefix]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// What a proxy puts before every path; empty or `/prefix`.
    prefix: String,
    /// Shared, as errors carry addresses.
    credentials: Arc<Credentials>,
}

/// What a client shows to a server. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// An API key, for HTTP.
    pub key: Option<String>,
    /// A client's token, for sockets, and for HTTP without a key.
    pub token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// Why a text names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    #[error("{url:?} is no URL of a server; it is like http://127.0.0.1:8080")]
    Form { url: String },
    #[error(
        "{url:?} asks for TLS, which this client does not speak; name the server's http:// address"
    )]
    Tls { url: String },
}

impl ServerUrl {
    /// The same server, which is shown these from now on.
    pub fn with(self, credentials: Credentials) -> Self {
        Self {
            credentials: Arc::new(credentials),
            ..self
        }
    }

    /// What to show with an HTTP request.
    pub fn bearer(&self) -> Option<&str> {
        let Credentials { key, token } = &*self.credentials;
        key.as_deref().or(token.as_deref())
    }

    /// What to show with the handshake of a socket.
    pub fn token(&self) -> Option<&str> {
        self.credentials.token.as_deref()
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the WebSocket is, behind host and port.
    pub fn socket_path(&self) -> String {
        format!("{}{SOCKET_PATH}", self.prefix)
    }

    /// Host and port as a `Host` header has them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for ServerUrl {
    type Err = BadUrl;

    fn from_str(url: &str) -> Result<Self, BadUrl> {
        let form = || BadUrl::Form { url: url.into() };
        let uri: Uri = url.parse().map_err(|_| form())?;
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => return Err(BadUrl::Tls { url: url.into() }),
            _ => return Err(form()),
        }
        if uri.query().is_some() {
            return Err(form());
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(form)?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            credentials: Arc::default(),
        })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_host_port_and_the_path_of_the_socket() {
        let url: ServerUrl = "http://[::1]:9000/realtime/".parse().unwrap();
        assert_eq!((url.host(), url.port()), ("::1", 9000));
        assert_eq!(url.socket_path(), "/realtime/connection/websocket");
        assert_eq!(url.to_string(), "http://[::1]:9000/realtime");
        let url: ServerUrl = "http://chat.example".parse().unwrap();
        assert_eq!(url.authority(), "chat.example:80");
    }

    #[test]
    fn what_is_no_server_is_refused_with_the_form_that_is() {
        for url in [
            "",
            "localhost:8080",
            "ftp://x",
            "http://x/?a=b",
            "http:///x",
        ] {
            let error = url.parse::<ServerUrl>().unwrap_err();
            assert_eq!(error, BadUrl::Form { url: url.into() }, "{url}");
        }
        let error = "https://x".parse::<ServerUrl>().unwrap_err();
        assert_eq!(
            error,
            BadUrl::Tls {
                url: "https://x".into()
            }
        );
    }
}
