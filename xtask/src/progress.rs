//! What the user sees while something runs: bars on a terminal, plain lines elsewhere, always
//! on standard error.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{hint, words};

/// Where progress goes. Cheap to clone; threads share it.
#[derive(Clone)]
pub(crate) struct Progress {
    verbosity: Verbosity,
    bars: MultiProgress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
}

/// One thing that is under way. Dropping it takes its bar away.
pub(crate) struct Step {
    progress: Progress,
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(verbosity: Verbosity) -> Progress {
        let visible = verbosity == Verbosity::Normal && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Progress { verbosity, bars: MultiProgress::with_draw_target(target) }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if self.verbosity == Verbosity::Normal {
            self.bars.suspend(|| say(text.as_ref()));
        }
    }

    /// Something the user should know although nothing failed; shown even when quiet.
    pub(crate) fn warn(&self, text: impl AsRef<str>) {
        self.bars.suspend(|| say(&format!("warning: {}", text.as_ref())));
    }

    /// An error, with what to do about it.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        self.bars.suspend(|| {
            say(&format!("error: {error:#}"));
            hint::hints(error).for_each(|hint| say(&format!("hint: {hint}")));
        });
    }

    /// Something that takes a while, and cannot tell how far it is.
    pub(crate) fn step(&self, text: impl Into<String>) -> Step {
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.begin(bar, style, text.into())
    }

    /// A transfer of `total` bytes.
    pub(crate) fn bytes(&self, text: impl Into<String>, total: u64) -> Step {
        let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let bar = self.bars.add(ProgressBar::new(total));
        self.begin(bar, ProgressStyle::with_template(template), text.into())
    }

    fn begin(
        &self,
        bar: ProgressBar,
        style: Result<ProgressStyle, indicatif::style::TemplateError>,
        text: String,
    ) -> Step {
        // A template that cannot be read is left out, which costs a bar its looks.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        // Without a terminal there is no bar: the line says that it began.
        if self.bars.is_hidden() {
            self.line(format!("{text} ..."));
        }
        bar.set_message(words::lines(&text).into_owned());
        Step { progress: self.clone(), bar }
    }
}

impl Step {
    /// `count` more bytes went through.
    pub(crate) fn advance(&self, count: u64) {
        self.bar.inc(count);
    }

    /// Says what it is at now.
    pub(crate) fn at(&self, text: impl Into<String>) {
        self.bar.set_message(words::lines(&text.into()).into_owned());
    }

    /// Shows a line of a program that talks for long: what it is at on a terminal, and all lines
    /// elsewhere, so that a log has them.
    pub(crate) fn said(&self, line: &str) {
        if self.progress.bars.is_hidden() {
            self.progress.line(line);
        } else {
            self.at(line);
        }
    }

    /// Ends it, with a line that stays.
    pub(crate) fn done(self, text: impl AsRef<str>) {
        self.progress.clone().line(text);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line on standard error. Where nobody reads it any more, the work goes on without.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr(), "{}", words::lines(line)).ok();
}

/// So many of something, for people.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A number of bytes for people, in powers of 1000 as registries and disks count.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_500, "1.50 kB"),
            (12_340, "12.3 kB"),
            (999_999, "1.00 MB"),
            (541_404_733, "541 MB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(human_bytes(bytes), expected);
        }
    }
}
