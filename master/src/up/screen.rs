use std::io::{self, Write};

/// How large a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// Where progress is shown: a block redrawn in place on a terminal, lines now and then elsewhere.
pub(crate) struct Screen<'a> {
    out: &'a mut dyn Write,
    /// `None` where it is no terminal.
    size: fn() -> Option<TerminalSize>,
    /// Lines of the block that is on the screen.
    drawn: usize,
}

impl<'a> Screen<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, size: fn() -> Option<TerminalSize>) -> Self {
        Self { out, size, drawn: 0 }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        (self.size)().is_some()
    }

    /// A line that stays.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        self.wipe()?;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Replaces the block. It is cut to the terminal's size of now, or counting lines would go wrong.
    pub(crate) fn draw(&mut self, block: &[String]) -> io::Result<()> {
        let Some(size) = (self.size)() else { return Ok(()) };
        let mut text = self.wiping();
        let block = &block[..block.len().min(size.rows.saturating_sub(1).max(1))];
        for line in block {
            text.push_str(&crate::text::ellipsis(line, size.columns.saturating_sub(1)));
            text.push('\n');
        }
        self.drawn = block.len();
        // In one write: nothing flickers.
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Removes the block.
    pub(crate) fn wipe(&mut self) -> io::Result<()> {
        let text = self.wiping();
        self.drawn = 0;
        self.out.write_all(text.as_bytes())
    }

    /// Up to the block's first line, and clear from there (ECMA-48: CPL, ED).
    fn wiping(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\u{1b}[{}F\u{1b}[J", self.drawn) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redraws_in_place_on_a_terminal_only() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, || Some(TerminalSize { columns: 10, rows: 3 }));
        screen
            .draw(&["a".to_owned(), "0123456789".to_owned(), "below the screen".to_owned()])
            .expect("drawn");
        screen.draw(&["b".to_owned()]).expect("drawn");
        screen.say("note").expect("said");
        screen.wipe().expect("wiped");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "a\n01234567…\n\u{1b}[2F\u{1b}[Jb\n\u{1b}[1F\u{1b}[Jnote\n"
        );
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, || None);
        screen.draw(&["a".to_owned()]).expect("nothing");
        screen.say("note").expect("said");
        assert_eq!(out, b"note\n");
    }
}
