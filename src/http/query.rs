//! Query strings: every parameter is known, and has a value that fits.

use std::str::FromStr;

use actix_web::{HttpRequest, web::Query};

use super::error::Problem;

/// The parameters of one request.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Only `allowed` names may occur, each once.
    pub fn of(request: &HttpRequest, allowed: &'static [&'static str]) -> Result<Self, Problem> {
        Self::with_many(request, allowed, "")
    }

    /// Only `allowed` names may occur, each once but for `many`.
    pub fn with_many(
        request: &HttpRequest,
        allowed: &'static [&'static str],
        many: &str,
    ) -> Result<Self, Problem> {
        let query = request.query_string();
        let pairs = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|error| Problem::bad_parameter("query string", query, &error.to_string()))?
            .into_inner();
        for (at, (name, value)) in pairs.iter().enumerate() {
            if !allowed.contains(&&**name) {
                return Err(Problem::unknown_parameter(name, allowed));
            }
            if name != many && pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::bad_parameter(
                    name,
                    value,
                    "one value, and was given before",
                ));
            }
        }
        Ok(Self(pairs))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(there, _)| there == name)?;
        Some(value)
    }

    /// All values of a name that may occur several times.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(there, _)| there == name);
        named.map(|(_, value)| &**value)
    }

    /// `None` if it is not given; an error that says `expected` if it does not fit.
    pub fn parsed<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) if fits(&value) => Ok(Some(value)),
            _ => Err(Problem::bad_parameter(name, text, expected)),
        }
    }
}
