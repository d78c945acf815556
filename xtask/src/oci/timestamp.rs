//! The one time that an image holds.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, Utc};

/// A moment in whole seconds, as SOURCE_DATE_EPOCH gives it and as `created` shows it (RFC 3339).
/// Source: reproducible-builds.org, "SOURCE_DATE_EPOCH"; OCI image specification, config.md, "created".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(DateTime<Utc>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("SOURCE_DATE_EPOCH is `{0}`, which is not a number of seconds since 1970")]
pub(crate) struct TimestampError(String);

/// 9999-12-31T23:59:59Z: a year has four digits. Source: RFC 3339, 5.6, `date-fullyear`.
const LATEST: i64 = 253_402_300_799;

impl Timestamp {
    /// The moment at which `day` begins.
    pub(crate) fn midnight(day: NaiveDate) -> Timestamp {
        Timestamp(day.and_time(NaiveTime::MIN).and_utc())
    }

    /// An RFC 3339 time, such as an image's `created`.
    pub(crate) fn from_rfc_3339(text: &str) -> Option<Timestamp> {
        DateTime::parse_from_rfc3339(text).ok().map(|time| Timestamp(time.to_utc()))
    }

    /// Since 1970.
    pub(crate) fn seconds(self) -> i64 {
        self.0.timestamp()
    }

    pub(crate) fn day(self) -> NaiveDate {
        self.0.date_naive()
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Timestamp, TimestampError> {
        text.parse()
            .ok()
            .filter(|seconds| (0..=LATEST).contains(seconds))
            .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
            .map(Timestamp)
            .ok_or_else(|| TimestampError(text.to_owned()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc_3339() {
        let shown = |text: &str| text.parse::<Timestamp>().map(|t| t.to_string());
        assert_eq!(shown("0"), Ok("1970-01-01T00:00:00Z".to_owned()));
        assert_eq!(shown("1700000000"), Ok("2023-11-14T22:13:20Z".to_owned()));
        for bad in ["", "-1", "now", "99999999999999999", "253402300800"] {
            assert_eq!(shown(bad), Err(TimestampError(bad.to_owned())));
        }
    }

    #[test]
    fn reads_days_and_rfc_3339() {
        let day = NaiveDate::from_ymd_opt(2025, 8, 9).unwrap();
        let midnight = Timestamp::midnight(day);
        assert_eq!((midnight.seconds(), midnight.day()), (1_754_697_600, day));
        let later = Timestamp::from_rfc_3339("2025-08-10T01:59:59.123456789+02:00").unwrap();
        assert_eq!((later.day(), Timestamp::from_rfc_3339("today")), (day, None));
    }
}
