//! What every measurement prints: a JSON line per figure.

/// Compares the medians of what was measured in turns.
pub fn print(name: &str, ours: Vec<f64>, theirs: Vec<f64>, unit: &str) {
    compare(name, quantile(ours, 0.5), quantile(theirs, 0.5), unit);
}

/// Prints one figure of each.
pub fn compare(name: &str, ours: f64, theirs: f64, unit: &str) {
    let thousandths = |value: f64| (value * 1000.0).round() / 1000.0;
    let (ratio, ours, theirs) = (thousandths(ours / theirs), thousandths(ours), thousandths(theirs));
    println!("{}", serde_json::json!({"name": name, "ratio": ratio, "ours": ours, "theirs": theirs, "unit": unit}));
}

/// MiB that a process has had in memory at most, by its folder in /proc.
pub fn most_memory(process: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// The value that this part of all does not exceed.
pub fn quantile(mut all: Vec<f64>, part: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let count = all.iter().enumerate().take_while(|(index, _)| (*index as f64) < part * all.len() as f64).count();
    all[count.max(1) - 1]
}
