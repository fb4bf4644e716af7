//! What `tail` prints.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::delta::RoomName;

/// Writes a line for each thing that happened; keeps the first failure for the next flush.
pub struct Printer<W: Write> {
    out: BufWriter<W>,
    json: bool,
    failed: Option<io::Error>,
}

#[derive(Serialize)]
struct Delta<'a> {
    room: &'a RoomName,
    offset: u64,
    time: u64,
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Reload<'a> {
    room: &'a RoomName,
    reload: bool,
}

impl<W: Write> Printer<W> {
    pub fn new(out: W, json: bool) -> Self {
        Self {
            out: BufWriter::new(out),
            json,
            failed: None,
        }
    }

    pub fn delta(&mut self, room: &RoomName, offset: u64, time: u64, data: &RawValue) {
        if self.json {
            self.object(&Delta {
                room,
                offset,
                time,
                data,
            });
        } else {
            let written = writeln!(self.out, "{room} {offset} {data}");
            self.keep(written);
        }
    }

    /// For people, stderr tells it; for machines it belongs between the deltas.
    pub fn reload(&mut self, room: &RoomName) {
        if self.json {
            self.object(&Reload { room, reload: true });
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
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

    fn printed(json: bool) -> String {
        let mut printer = Printer::new(Vec::new(), json);
        let room = RoomName::new("lobby").unwrap();
        let data: &RawValue = serde_json::from_str("12345678901234567890").unwrap();
        printer.reload(&room);
        printer.delta(&room, 12, 1_764_025_200_000, data);
        String::from_utf8(printer.into_inner()).unwrap()
    }

    #[test]
    fn lines_are_for_people_and_objects_for_machines() {
        assert_eq!(printed(false), "lobby 12 12345678901234567890\n");
        assert_eq!(
            printed(true),
            concat!(
                "{\"room\":\"lobby\",\"reload\":true}\n",
                "{\"room\":\"lobby\",\"offset\":12,\"time\":1764025200000,\"data\":12345678901234567890}\n"
            )
        );
    }

    #[test]
    fn a_closed_pipe_is_found_at_the_flush() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut printer = Printer::new(writer, true);
        printer.reload(&RoomName::new("lobby").unwrap());
        let error = printer.flush().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
