//! How messages spell counts and durations.
use std::fmt::Display;
use std::time::Duration;

/// A count with its noun: `1 node`, `2 nodes`. The noun is in the singular.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    format!("{number} {}", plural(number == N::from(1), noun))
}

fn plural(one: bool, noun: &str) -> String {
    let vowel = |before: &str| before.ends_with(['a', 'e', 'i', 'o', 'u']);
    match noun.strip_suffix('y') {
        _ if one => noun.to_owned(),
        Some(stem) if !vowel(stem) => format!("{stem}ies"),
        None if noun.ends_with(['s', 'x']) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// A duration in its two largest units, as flags accept it: `500ms`, `15s`, `2m10s`, `1h5m`, `3d4h`.
pub fn duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let two = |large: u64, unit: &str, small: u64, sub: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{sub}"),
    };
    match seconds {
        0 if millis > 0 => format!("{millis}ms"),
        0..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_nouns_number() {
        assert_eq!(count(1, "node"), "1 node");
        assert_eq!(count(0, "node"), "0 nodes");
        assert_eq!(count(2_usize, "binary"), "2 binaries");
        assert_eq!(count(2_i64, "day"), "2 days");
        assert_eq!(count(3_u32, "CPU"), "3 CPUs");
    }

    #[test]
    fn durations_are_spelled_as_flags_accept_them() {
        let of = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([0, 15, 60, 130].map(of), ["0s", "15s", "1m", "2m10s"]);
        assert_eq!([3_600, 3_900, 86_400, 273_600].map(of), ["1h", "1h5m", "1d", "3d4h"]);
        assert_eq!(duration(Duration::from_millis(500)), "500ms");
    }
}
