//! Quantities that cannot be mixed up: seconds, joules, watts, bytes.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Div, Mul, Sub},
};

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $symbol:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub f64);

        impl $name {
            pub const ZERO: Self = Self(0.0);

            /// The larger of the two.
            pub fn max(self, other: Self) -> Self {
                Self(self.0.max(other.0))
            }

            /// The smaller of the two.
            pub fn min(self, other: Self) -> Self {
                Self(self.0.min(other.0))
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }

        impl Mul<f64> for $name {
            type Output = Self;
            fn mul(self, factor: f64) -> Self {
                Self(self.0 * factor)
            }
        }

        /// A ratio of two like quantities has no unit.
        impl Div for $name {
            type Output = f64;
            fn div(self, other: Self) -> f64 {
                self.0 / other.0
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                Self(items.map(|item| item.0).sum())
            }
        }

        /// With an SI prefix: `1.25 ms`.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (scale, prefix) = si_prefix(self.0);
                f.pad(&format!("{:.3} {prefix}{}", self.0 / scale, $symbol))
            }
        }
    };
}

unit!(
    /// Time.
    ///
    /// Power times time is energy; time and energy do not add up:
    ///
    /// ```
    /// use maskwright_blueprint::{Joules, Seconds, Watts};
    /// assert_eq!(Watts(3.0) * Seconds(2.0), Joules(6.0));
    /// ```
    ///
    /// ```compile_fail
    /// use maskwright_blueprint::{Joules, Seconds};
    /// let sum = Seconds(2.0) + Joules(6.0);
    /// ```
    Seconds, "s"
);
unit!(
    /// Energy.
    Joules, "J"
);
unit!(
    /// Power.
    Watts, "W"
);
unit!(
    /// Amount of data.
    Bytes, "B"
);
unit!(
    /// Bandwidth.
    BytesPerSecond, "B/s"
);

impl Mul<Seconds> for Watts {
    type Output = Joules;
    fn mul(self, time: Seconds) -> Joules {
        Joules(self.0 * time.0)
    }
}

impl Mul<Watts> for Seconds {
    type Output = Joules;
    fn mul(self, power: Watts) -> Joules {
        power * self
    }
}

impl Div<Seconds> for Joules {
    type Output = Watts;
    fn div(self, time: Seconds) -> Watts {
        Watts(self.0 / time.0)
    }
}

impl Div<BytesPerSecond> for Bytes {
    type Output = Seconds;
    fn div(self, bandwidth: BytesPerSecond) -> Seconds {
        Seconds(self.0 / bandwidth.0)
    }
}

fn si_prefix(value: f64) -> (f64, &'static str) {
    const PREFIXES: [(f64, &str); 9] = [
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
        (1e-3, "m"),
        (1e-6, "u"),
        (1e-9, "n"),
        (1e-12, "p"),
    ];
    let magnitude = value.abs();
    if magnitude == 0.0 {
        return (1.0, "");
    }
    PREFIXES.into_iter().find(|(scale, _)| magnitude >= *scale).unwrap_or((1e-12, "p"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_power_times_time() {
        assert_eq!(Watts(32.0) * Seconds(0.25), Joules(8.0)); // exact in binary
    }

    #[test]
    fn quotients_have_the_unit_that_is_left() {
        assert_eq!(Joules(8.0) / Seconds(0.25), Watts(32.0));
        assert_eq!(Bytes(64.0) / BytesPerSecond(256.0), Seconds(0.25));
        assert_eq!(Seconds(3.0) / Seconds(2.0), 1.5);
    }

    #[test]
    fn quantities_print_with_an_si_prefix() {
        assert_eq!(Seconds(0.00125).to_string(), "1.250 ms");
        assert_eq!(BytesPerSecond(1.37e11).to_string(), "137.000 GB/s");
        assert_eq!(Joules(0.0).to_string(), "0.000 J");
    }
}
