//! How long to wait for what, and how often to try again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use super::error::RegistryError;
use crate::progress::Progress;

/// Limits of waiting. Tests shorten them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// For a connection, TLS included.
    pub(super) connect: Duration,
    /// For the next bytes of a transfer, or for an answer's head.
    pub(super) idle: Duration,
    /// For the answer once a body has been sent: registries move gigabytes then.
    pub(super) commit: Duration,
    /// The first pause between two tries; each one doubles it.
    pub(super) pause: Duration,
    /// No pause is longer, whatever Retry-After says.
    pub(super) longest_pause: Duration,
    /// How often one request is sent at most.
    pub(super) tries: u32,
    /// How often an upload is sent at most of which much has gone out already: giving up throws that
    /// away. Also how many sessions it may take, however far each of them comes.
    pub(super) patient_tries: u32,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            commit: Duration::from_secs(300),
            pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(30),
            tries: 5,
            // With the pauses between them, a line may be down for two minutes.
            patient_tries: 12,
        }
    }
}

/// The tries of one request that may fail and pass.
pub(super) struct Retry {
    timing: Timing,
    progress: Progress,
    failures: u32,
    /// Those since something moved; the pause is as long as there are many.
    streak: u32,
    limit: u32,
}

impl Retry {
    pub(super) fn new(timing: Timing, progress: Progress) -> Retry {
        Retry { timing, progress, failures: 0, streak: 0, limit: timing.tries }
    }

    /// Gives up later from now on.
    pub(super) fn be_patient(&mut self) {
        self.limit = self.timing.patient_tries;
    }

    /// Waits before the next try, and says why; false when there is none.
    pub(super) async fn wait(&mut self, why: &RegistryError) -> bool {
        self.failures += 1;
        self.streak += 1;
        if self.failures >= self.limit {
            return false;
        }
        self.progress.line(format!("{why}; trying again, {} of {}", self.failures + 1, self.limit));
        tokio::time::sleep(self.pause(why.retry_after(), random())).await;
        true
    }

    /// Something went well in between, so the count starts anew.
    pub(super) fn reset(&mut self) {
        (self.failures, self.streak) = (0, 0);
    }

    /// Something moved, which counts for nothing yet, but shows that the line is there again.
    pub(super) fn shorten(&mut self) {
        self.streak = 0;
    }

    /// The pause after a streak of failures: between half of it and all of it by `random`, so that
    /// clients which failed together do not come back together.
    fn pause(&self, retry_after: Option<Duration>, random: u32) -> Duration {
        let full = self.timing.pause * 2u32.pow(self.streak.saturating_sub(1).min(16));
        let jittered = full / 2 + full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0);
        retry_after.map_or(jittered, |after| after.max(jittered)).min(self.timing.longest_pause)
    }
}

/// What Retry-After asks for: seconds, or a date.
/// Source: RFC 9110, 10.2.3.
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date: SystemTime = chrono::DateTime::parse_from_rfc2822(header).ok()?.into();
    Some(date.duration_since(now).unwrap_or_default())
}

/// The standard library seeds each hasher at random, which is random enough for a pause.
fn random() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Verbosity;

    #[test]
    fn pauses_double_and_are_bounded() {
        let mut retry = Retry::new(Timing::default(), Progress::new(Verbosity::Quiet));
        let pauses: Vec<u128> = (1..=4)
            .map(|failures| {
                retry.streak = failures;
                retry.pause(None, u32::MAX).as_millis()
            })
            .collect();
        assert_eq!(pauses, [250, 500, 1000, 2000]);
        assert_eq!(retry.pause(None, 0).as_millis(), 1000);
        assert_eq!(retry.pause(Some(Duration::from_secs(5)), 0).as_secs(), 5);
        assert_eq!(retry.pause(Some(Duration::from_secs(86_400)), 0).as_secs(), 30);
        retry.shorten();
        assert_eq!(retry.pause(None, u32::MAX).as_millis(), 250);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // RFC 9110's own example, 21 October 2015 07:28:00 GMT, asked a minute before.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480 - 60);
        let cases = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(60)),
            ("Wed, 21 Oct 2014 07:28:00 GMT", None),
            ("Tue, 21 Oct 2014 07:28:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ];
        for (header, expected) in cases {
            assert_eq!(retry_after(header, now), expected.map(Duration::from_secs), "for {header}");
        }
    }
}
