//! How long answers take. Owns the figures of a series; not what they may be compared with.

use std::fmt;
use std::time::Duration;

/// The times of a series of answers.
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// At least a hundred, because fewer have no 99 %.
    #[track_caller]
    pub fn of(mut times: Vec<Duration>) -> Self {
        assert!(times.len() >= 100, "only {} answers", times.len());
        times.sort_unstable();
        Self(times)
    }

    fn at_percent(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent).div_ceil(100) - 1]
    }

    pub fn median(&self) -> Duration {
        self.at_percent(50)
    }

    /// 99 of 100 took no longer.
    pub fn most(&self) -> Duration {
        self.at_percent(99)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (median, most, worst) = (ms(self.median()), ms(self.most()), ms(self.at_percent(100)));
        write!(f, "{} answers: median {median:.1} ms, 99 % {most:.1} ms, worst {worst:.1} ms", self.0.len())
    }
}
