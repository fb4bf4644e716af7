//! What the commands that read deltas print.

use std::io::{self, BufWriter, Write};

use anstream::{AutoStream, ColorChoice, stream::RawStream};
use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::delta::RoomName;

/// How a delta is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `room offset JSON`, for pipes.
    Plain,
    /// With its time in front, for a person's eyes.
    Terminal { colour: bool },
    /// One JSON object.
    Json,
}

impl Form {
    /// What fits `out`; colours follow the environment (`NO_COLOR`, `CLICOLOR`, `TERM`).
    pub fn fitting(out: &impl RawStream, json: bool) -> Self {
        match (json, out.is_terminal()) {
            (true, _) => Self::Json,
            (false, false) => Self::Plain,
            (false, true) => Self::Terminal {
                colour: AutoStream::choice(out) != ColorChoice::Never,
            },
        }
    }
}

/// Writes a line for each thing that happened; keeps the first failure for the next flush.
pub struct Printer<W: Write> {
    out: BufWriter<W>,
    form: Form,
    zone: TimeZone,
    failed: Option<io::Error>,
}

/// A delta as it is printed.
#[derive(Clone, Copy, Serialize)]
pub struct Line<'a> {
    pub room: &'a RoomName,
    pub offset: u64,
    /// Milliseconds since the Unix epoch; 0 where the server does not say.
    pub time: u64,
    /// Where the server says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a RawValue>,
    pub data: &'a RawValue,
}

#[derive(Serialize)]
struct Reload<'a> {
    room: &'a RoomName,
    reload: bool,
}

impl<W: Write> Printer<W> {
    /// Times are shown as in this system's time zone.
    pub fn new(out: W, form: Form) -> Self {
        Self {
            out: BufWriter::new(out),
            form,
            zone: TimeZone::system(),
            failed: None,
        }
    }

    pub fn delta(&mut self, line: Line<'_>) {
        let Line {
            room, offset, data, ..
        } = line;
        match self.form {
            Form::Json => self.object(&line),
            Form::Plain => {
                let written = writeln!(self.out, "{room} {offset} {data}");
                self.keep(written);
            }
            Form::Terminal { colour } => {
                let style = |style: Style| if colour { style } else { Style::new() };
                let dim = style(Style::new().dimmed());
                let name = style(AnsiColor::Cyan.on_default());
                let place = style(AnsiColor::Green.on_default());
                let time = self.local(line.time);
                let written = writeln!(
                    self.out,
                    "{dim}{time}{dim:#} {name}{room}{name:#} {place}{offset}{place:#} {data}"
                );
                self.keep(written);
            }
        }
    }

    /// For people, stderr tells it; for machines it belongs between the deltas.
    pub fn reload(&mut self, room: &RoomName) {
        if self.form == Form::Json {
            self.object(&Reload { room, reload: true });
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    fn local(&self, time: u64) -> String {
        let known = i64::try_from(time).ok().filter(|time| *time > 0);
        match known.map(Timestamp::from_millisecond) {
            Some(Ok(time)) => {
                let time = time.to_zoned(self.zone.clone());
                time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
            }
            _ => "-".to_owned(),
        }
    }

    fn object(&mut self, object: &impl Serialize) {
        let written = serde_json::to_writer(&mut self.out, object)
            .map_err(io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"));
        self.keep(written);
    }

    fn keep(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

#[cfg(test)]
impl Printer<Vec<u8>> {
    pub fn into_inner(self) -> Vec<u8> {
        self.out.into_inner().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(form: Form) -> String {
        let mut printer = Printer::new(Vec::new(), form);
        printer.zone = TimeZone::UTC;
        let room = RoomName::new("lobby").unwrap();
        printer.reload(&room);
        printer.delta(Line {
            room: &room,
            offset: 12,
            time: 1_764_025_200_000,
            id: None,
            info: None,
            data: serde_json::from_str("12345678901234567890").unwrap(),
        });
        String::from_utf8(printer.into_inner()).unwrap()
    }

    #[test]
    fn lines_are_for_people_and_objects_for_machines() {
        assert_eq!(printed(Form::Plain), "lobby 12 12345678901234567890\n");
        assert_eq!(
            printed(Form::Json),
            concat!(
                "{\"room\":\"lobby\",\"reload\":true}\n",
                "{\"room\":\"lobby\",\"offset\":12,\"time\":1764025200000,\"data\":12345678901234567890}\n"
            )
        );
    }

    #[test]
    fn on_a_terminal_there_are_times_and_colours_only_where_they_are_wanted() {
        assert_eq!(
            printed(Form::Terminal { colour: false }),
            "2025-11-24 23:00:00.000 lobby 12 12345678901234567890\n"
        );
        let coloured = printed(Form::Terminal { colour: true });
        assert!(
            coloured.contains("\u{1b}[36mlobby\u{1b}[0m "),
            "{coloured:?}"
        );
    }

    #[test]
    fn a_closed_pipe_is_found_at_the_flush() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut printer = Printer::new(writer, Form::Json);
        printer.reload(&RoomName::new("lobby").unwrap());
        let error = printer.flush().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
