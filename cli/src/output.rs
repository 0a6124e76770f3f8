//! What the terminal shows: data on stdout, talk on stderr; colours only for people who have them and want them.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// Prints data. A reader that went away (a closed pipe) ends the work, without complaint.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Unheard,
        _ => Failure::because("cannot write to stdout", &error),
    })
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[value(alias = "text")]
    Table,
    /// For machines.
    Json,
    /// For machines.
    Yaml,
}

impl Format {
    /// Prints `data` in this form.
    pub(crate) fn print<T: Serialize>(self, data: &T, table: impl FnOnce() -> Table) -> Result<(), Failure> {
        match self {
            Self::Table => line(&table().render(colours_on_stdout())),
            Self::Json => {
                let json = serde_json::to_string_pretty(data);
                line(&json.map_err(|error| Failure::because("cannot write JSON", &error))?)
            }
            Self::Yaml => {
                let yaml = serde_saphyr::to_string(data);
                text(&yaml.map_err(|error| Failure::because("cannot write YAML", &error))?)
            }
        }
    }
}

/// Prints a line of data.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    text(&format!("{line}\n"))
}

/// Says something about what is going on. Lines are ours, whatever else is in them may be anybody's.
pub(crate) fn say(line: &str) {
    tell("", line);
}

/// The same after a `mark`, which may be coloured.
pub(crate) fn tell(mark: &str, text: &str) {
    let lines: Vec<_> = text.split('\n').map(visible).collect();
    // There is nowhere to complain when talk cannot be heard.
    _ = writeln!(io::stderr().lock(), "{mark}{}", lines.join("\n"));
}

/// Text from elsewhere in a form that steers no terminal, forges no line, and is read in the order in which it is
/// written: what would do so stands there as an escape, such as `\n` or `\u{1b}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_treacherous) {
        return Cow::Borrowed(text);
    }
    let escaped =
        text.chars().map(|c| if is_treacherous(c) { c.escape_default().to_string() } else { c.to_string() });
    Cow::Owned(escaped.collect())
}

/// Control characters, separators of lines, and what turns the direction of writing.
fn is_treacherous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Is a person reading stdout?
pub(crate) fn is_interactive() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Are colours wanted on stderr?
pub(crate) fn colours_on_stderr() -> bool {
    io::stderr().is_terminal() && !no_color()
}

/// Are colours wanted on stdout?
pub(crate) fn colours_on_stdout() -> bool {
    is_interactive() && !no_color()
}

/// How many lines the terminal has.
pub(crate) fn terminal_height() -> Option<usize> {
    rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_row))
        .filter(|rows| *rows > 0)
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// A table with aligned columns, two spaces apart; columns of numbers are aligned to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row. A cell stays in its line, whatever is in it.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell).into_owned()).collect());
    }

    /// The table as lines, the header in bold if `colours`.
    pub(crate) fn render(&self, colours: bool) -> String {
        let columns = self.header.len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.chain(self.header.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let is_number = |column: usize| {
            !self.rows.is_empty()
                && self.rows.iter().filter_map(|row| row.get(column)).all(|cell| {
                    cell.starts_with(|c: char| c.is_ascii_digit() || c == '-') && !cell.contains('T')
                })
        };
        let layout: Vec<(usize, bool)> =
            (0..columns).map(|column| (width(column), is_number(column))).collect();
        let render_row = |row: &[String]| {
            let cells = layout.iter().enumerate().map(|(column, (width, right))| {
                let cell = row.get(column).map_or("", String::as_str);
                if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut text = render_row(&self.header);
        if colours {
            text = format!("\u{1b}[1m{text}\u{1b}[0m");
        }
        for row in &self.rows {
            text.push('\n');
            text.push_str(&render_row(row));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_words_left_and_numbers_right() {
        let mut table = Table::new(&["AGENT", "APPS"]);
        table.row(["a".to_owned(), "5".to_owned()]);
        table.row(["agent-2".to_owned(), "100".to_owned()]);
        assert_eq!(table.render(false), "AGENT    APPS\na           5\nagent-2   100");
        assert!(table.render(true).starts_with("\u{1b}[1mAGENT"));
    }

    #[test]
    fn what_would_steer_a_terminal_or_forge_a_row_is_shown_as_it_is_written() {
        let mut table = Table::new(&["AGENT", "REASON"]);
        table.row(["a".to_owned(), "lost\nb  \u{1b}[31mfound\r\u{9b}\u{202e}".to_owned()]);
        assert_eq!(
            table.render(false),
            "AGENT  REASON\na      lost\\nb  \\u{1b}[31mfound\\r\\u{9b}\\u{202e}"
        );
        assert!(matches!(visible("grün, 緑, a b"), Cow::Borrowed(_)));
    }
}
