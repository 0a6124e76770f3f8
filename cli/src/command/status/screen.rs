//! What `top` shows, and how it comes onto a terminal. Pure.

use super::fleet::{Fleet, Row};
use super::table;

/// Lines of a frame that are not rows: the headline, a line for trouble or none, the names of the columns, how many more
/// there are, and the cursor's.
const OTHERS: usize = 5;

/// A look at the fleet, for so many lines. `trouble` says why it is an old one.
pub(super) fn frame(fleet: &Fleet, trouble: Option<&str>, height: usize, colours: bool) -> String {
    let rows = height.saturating_sub(OTHERS).max(1);
    let shown: Vec<Row> = fleet.worst_first().into_iter().take(rows).collect();
    let rest = fleet.agents.len().saturating_sub(shown.len());
    let more = if rest > 0 { format!("and {rest} more\n") } else { String::new() };
    let trouble = trouble.map_or_else(String::new, |trouble| {
        let line = trouble.lines().next().unwrap_or_default();
        format!("no answer since then: {}", line.replace(char::is_control, " "))
    });
    format!("{}\n{trouble}\n{}\n{more}", fleet.headline(), table(&shown).render(colours))
}

/// Where frames are drawn, each over the one before.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Lines of the last frame.
    drawn: usize,
}

impl Screen {
    /// What brings a frame onto the terminal.
    pub(super) fn draw(&mut self, frame: &str) -> String {
        let back = match self.drawn {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A\u{1b}[J"),
        };
        self.drawn = frame.lines().count();
        // What is wider than the terminal is cut: a line that became two would not be drawn over.
        format!("{back}\u{1b}[?7l{frame}\u{1b}[?7h")
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::operator::scrape::parse;

    fn fleet(agents: usize) -> Fleet {
        let lines: Vec<String> = (0..agents)
            .map(|n| format!("tiphys_principal_agent_connected{{agent_name=\"a{n}\",mode=\"managed\"}} 1\n"))
            .collect();
        Fleet::of(&parse(&lines.concat()), &[], Timestamp::UNIX_EPOCH, None)
    }

    #[test]
    fn a_frame_fits_and_says_what_it_leaves_out() {
        for (agents, height) in [(0, 25), (3, 25), (100, 25), (100, 2)] {
            let frame = frame(&fleet(agents), None, height, false);
            assert!(frame.lines().count() < height.max(OTHERS + 1), "{agents} {height}:\n{frame}");
            assert_eq!(frame.contains("more"), agents == 100, "{frame}");
        }
    }

    #[test]
    fn who_does_not_answer_is_told_of_in_a_line_that_takes_no_more_room() {
        let (fleet, trouble) = (fleet(3), Some("connection refused\nremedy: start it"));
        let told = frame(&fleet, trouble, 25, false);
        assert_eq!(told.lines().nth(1), Some("no answer since then: connection refused"));
        assert_eq!(told.lines().count(), frame(&fleet, None, 25, false).lines().count());
    }

    #[test]
    fn each_frame_is_drawn_over_the_one_before() {
        let mut screen = Screen::default();
        assert!(!screen.draw("a\nb\n").contains("[2A"));
        assert!(screen.draw("c\n").starts_with("\u{1b}[2A\u{1b}[J"));
        assert!(screen.draw("d\n").starts_with("\u{1b}[1A\u{1b}[J"));
    }
}
