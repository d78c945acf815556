//! What was measured, beside the bar that it is to reach.

use serde::Serialize;

use crate::progress::human_bytes;

#[derive(Debug, Serialize)]
pub(super) struct Table {
    /// What is compared with, and how it is called at the head of its column.
    pub(super) other: &'static str,
    pub(super) version: String,
    pub(super) runs: usize,
    pub(super) rows: Vec<Row>,
}

/// One line: medians.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) unit: Unit,
    pub(super) ours: f64,
    /// Where the other does the same.
    pub(super) other: Option<f64>,
    pub(super) bar: &'static str,
    pub(super) met: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    Count,
    Seconds,
    Bytes,
    /// As often as something else.
    Times,
}

impl Row {
    /// At most `most` times what the other takes.
    pub(super) fn share(
        what: &'static str,
        unit: Unit,
        ours: f64,
        other: f64,
        most: f64,
        bar: &'static str,
    ) -> Row {
        Row { what, unit, ours, other: Some(other), bar, met: ours <= other * most }
    }

    /// Less than `most`, whatever others take.
    pub(super) fn under(what: &'static str, unit: Unit, ours: f64, most: f64, bar: &'static str) -> Row {
        Row { what, unit, ours, other: None, bar, met: ours < most }
    }
}

impl Table {
    pub(super) fn text(&self) -> String {
        let mut lines = vec![
            ["what", "ours", self.other, "bar", "met?"].map(str::to_owned),
            ["----", "----", "-----", "---", "----"].map(str::to_owned),
        ];
        for row in &self.rows {
            let met = if row.met { "met" } else { "not met" };
            let other = row.other.map_or("-".to_owned(), |other| row.unit.show(other));
            lines.push([row.what.to_owned(), row.unit.show(row.ours), other, row.bar.into(), met.into()]);
        }
        let widths: [usize; 5] =
            std::array::from_fn(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0));
        let mut text = format!("{}, medians of {} runs\n\n", self.version, self.runs);
        for [what, ours, other, bar, met] in &lines {
            let [a, b, c, d, _] = widths;
            text += &format!("{what:<a$}  {ours:>b$}  {other:>c$}  {bar:<d$}  {met}\n");
        }
        text
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Count => format!("{value:.0}"),
            Unit::Seconds => format!("{value:.2} s"),
            Unit::Bytes => human_bytes(value as u64),
            Unit::Times => format!("{value:.2} x"),
        }
    }
}

/// The middle of some values; of an even number, the mean of the two in the middle.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (middle, 0) => (values[middle - 1] + values[middle]) / 2.0,
        (middle, _) => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_is_met() {
        let row = |what, unit, ours, other, met| Row { what, unit, ours, other, bar: "9 or fewer", met };
        let rows = vec![
            row("requests", Unit::Count, median([9.0, 7.0, 8.0]), Some(142.0), true),
            row("time", Unit::Seconds, median([0.5, 1.5]), None, false),
            row("bytes", Unit::Times, 1.004, None, true),
        ];
        let table = Table { other: "crane", version: "crane 1".to_owned(), runs: 3, rows };
        insta::assert_snapshot!(table.text(), @"
        crane 1, medians of 3 runs

        what        ours  crane  bar         met?
        ----        ----  -----  ---         ----
        requests       8    142  9 or fewer  met
        time      1.00 s      -  9 or fewer  not met
        bytes     1.00 x      -  9 or fewer  met
        ");
    }
}
