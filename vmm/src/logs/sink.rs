//! Where lines go.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use proto::v1::LogBatch;

use super::line::{Format, line};
use super::{RotatingFile, Written};

/// Where lines go.
#[derive(Debug)]
pub enum Sink {
    /// Standard output.
    Output,
    /// Files.
    File(RotatingFile),
    /// A socket of datagrams, such as this host's `/dev/log`.
    Syslog(UnixDatagram),
}

/// A guest's log.
#[derive(Debug)]
pub struct Log {
    /// What its lines are marked with.
    pub tag: String,
    /// How they look.
    pub format: Format,
    /// Where they go.
    pub sink: Sink,
}

impl Log {
    /// Writes what a guest has sent.
    pub fn take(&mut self, batch: &LogBatch) -> Written {
        let mut lines: Vec<String> =
            batch.records.iter().map(|record| line(record, &self.tag, self.format)).collect();
        if batch.dropped > 0 {
            log::warn!("{}: {} log messages of the guest were lost", self.tag, batch.dropped);
            lines.push(format!("{}: {} messages were lost", self.tag, batch.dropped));
        }
        match &mut self.sink {
            Sink::Output => {
                let mut out = io::stdout().lock();
                out.write_all(text(&lines).as_bytes())?;
                out.flush()
            }
            // One append each, so that no line is in two files.
            Sink::File(file) => {
                lines.iter().try_for_each(|line| file.append(format!("{line}\n").as_bytes()))
            }
            Sink::Syslog(socket) => {
                lines.iter().try_for_each(|line| socket.send(line.as_bytes()).map(drop))
            }
        }
    }
}

fn text(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use proto::v1::LogRecord;

    use super::*;

    #[test]
    fn every_record_is_a_line_and_losses_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let sink = Sink::File(RotatingFile::open(&path, 1 << 20).unwrap());
        let mut log = Log { tag: "vm".into(), format: Format::Plain, sink };
        let record = |text: &str| LogRecord { text: text.into(), ..LogRecord::default() };
        log.take(&LogBatch { records: vec![record("a\nb"), record("c")], dropped: 7 }).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].ends_with("a#012b"));
        assert_eq!(lines[2], "vm: 7 messages were lost");
    }
}
