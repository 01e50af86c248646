//! Kubernetes quantities and durations as numbers.
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a string could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a quantity.
    #[error("`{0}` is not a quantity such as `250m`, `0.5` or `512Mi`")]
    Quantity(String),
    /// A quantity outside the supported range.
    #[error("`{0}` is out of range")]
    Range(String),
    /// Not a duration.
    #[error("`{0}` is not a duration such as `30s`, `10m` or `1h30m`")]
    Duration(String),
}

/// Thousandths of a processor, rounded up as Kubernetes does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millicores(pub u64);

/// Bytes, rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Millicores {
    /// Processors, Mesos' unit; Mesos keeps three decimals.
    pub fn cores(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl Bytes {
    /// Megabytes, Mesos' unit, with the three decimals that Mesos keeps. Rounded up, so that it is never less than
    /// requested.
    pub fn megabytes(self) -> f64 {
        let thousandths = (u128::from(self.0) * 1000).div_ceil(1 << 20);
        thousandths as f64 / 1000.0
    }
}

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, unit) in [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for Millicores {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        quantity(text, 1000).map(Millicores)
    }
}

impl FromStr for Bytes {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        quantity(text, 1).map(Bytes)
    }
}

/// `text` in units of 1/`scale`, rounded up. Exact: no floating point, so that 0.1 is exactly 100 thousandths.
fn quantity(text: &str, scale: u128) -> Result<u64, ParseError> {
    let wrong = || ParseError::Quantity(text.to_owned());
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(wrong());
    }
    let (binary, decimal): (u32, i32) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => {
            let exponent = exponent.strip_prefix(['e', 'E']).ok_or_else(wrong)?;
            (0, exponent.parse::<i32>().map_err(|_| wrong())?)
        }
    };
    let range = || ParseError::Range(text.to_owned());
    let fraction = fraction.trim_end_matches('0');
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| range())?;
    if digits == 0 {
        return Ok(0);
    }
    let tens = decimal - i32::try_from(fraction.len()).map_err(|_| range())?;
    let value = digits.checked_mul(scale).and_then(|value| value.checked_mul(1u128.checked_shl(binary)?));
    let value = value.ok_or_else(range)?;
    let power = |exponent: u32| 10u128.checked_pow(exponent);
    let value = if tens >= 0 {
        power(tens.unsigned_abs()).and_then(|power| value.checked_mul(power)).ok_or_else(range)?
    } else {
        // If the divisor overflows, the value rounds up to the smallest unit.
        power(tens.unsigned_abs()).map_or(1, |power| value.div_ceil(power))
    };
    u64::try_from(value).map_err(|_| range())
}

/// Parses a duration as Go prints it: numbers with a unit each, `1h30m`, `1.5s`, `200ms`.
pub fn duration(text: &str) -> Result<Duration, ParseError> {
    let wrong = || ParseError::Duration(text.to_owned());
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest == "0" {
        return Ok(total);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64((number * nanos).round() / 1e9).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let table = [
            ("250m", Some(250)),
            ("0.1", Some(100)),
            ("1", Some(1000)),
            ("1.5", Some(1500)),
            (".5", Some(500)),
            ("2.", Some(2000)),
            ("0", Some(0)),
            ("1n", Some(1)),
            ("100001u", Some(101)),
            ("1k", Some(1_000_000)),
            ("1e3", Some(1_000_000)),
            ("1E-1", Some(100)),
            ("", None),
            (".", None),
            ("m", None),
            ("-1", None),
            ("1 ", None),
            ("1.2.3", None),
            ("1mi", None),
            ("1e", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Millicores>().ok().map(|value| value.0), expected, "{text}");
        }
    }

    #[test]
    fn memory_rounds_up_and_never_wraps() {
        let table = [
            ("64Mi", Ok(64 << 20)),
            ("0.5Gi", Ok(512 << 20)),
            ("1M", Ok(1_000_000)),
            ("100m", Ok(1)),
            ("1.5", Ok(2)),
            ("15Ei", Ok(15 << 60)),
            ("16Ei", Err(ParseError::Range("16Ei".to_owned()))),
            ("1e30", Err(ParseError::Range("1e30".to_owned()))),
            ("1e-300", Ok(1)),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Bytes>().map(|value| value.0), expected, "{text}");
        }
    }

    #[test]
    fn mesos_units_have_three_decimals_and_are_never_too_small() {
        assert_eq!(Millicores(101).cores(), 0.101);
        assert_eq!(Bytes(128 << 20).megabytes(), 128.0);
        assert_eq!(Bytes(1).megabytes(), 0.001);
        assert_eq!(Bytes((1 << 20) + 1).megabytes(), 1.001);
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for text in ["250m", "2", "512Mi", "1Gi", "1000"] {
            if let Ok(value) = text.parse::<Bytes>() {
                assert_eq!(value.to_string().parse(), Ok(value), "{text}");
            }
            let value: Millicores = text.parse().unwrap();
            assert_eq!(value.to_string().parse(), Ok(value), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_prints_them() {
        let table = [
            ("10s", Some(10_000)),
            ("10m0s", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("200ms", Some(200)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("1s2", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration(text).ok().map(|value| value.as_millis()), expected, "{text}");
        }
    }
}
