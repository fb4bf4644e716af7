//! What is printed.

use crate::Case;

/// What one run of one server came to; what does not belong to its load is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// CPU seconds of the server for a million deliveries.
    pub cost: Option<f64>,
    pub deliveries_per_second: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub bytes_per_connection: f64,
}

/// One server, over all rounds.
pub struct Row {
    name: &'static str,
    rounds: Vec<Figures>,
}

impl Row {
    pub fn new(name: &'static str) -> Self {
        let rounds = Vec::new();
        Self { name, rounds }
    }

    pub fn add(&mut self, round: Figures) {
        self.rounds.push(round);
    }

    /// The median of those rounds that have this figure.
    fn median(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        let mut figures: Vec<f64> = self.rounds.iter().filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }
}

/// Prints all servers under one load; the last one is held against each of the others.
pub fn print(case: &Case, rows: &[Row]) {
    let text = |figure: Option<f64>, digits: usize| {
        figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
    };
    println!("\n{}", case.name);
    println!(
        "  {:<24}{:>12}{:>12}{:>14}{:>10}{:>10}{:>14}",
        "", "CPU s/M", "roomwire is", "deliveries/s", "p50 ms", "p99 ms", "B/connection"
    );
    let roomwire = rows.last().and_then(|row| row.median(|round| round.cost));
    for row in rows {
        let cost = row.median(|round| round.cost);
        let ratio = roomwire.zip(cost).map(|(ours, theirs)| ours / theirs);
        println!(
            "  {:<24}{:>12}{:>12}{:>14}{:>10}{:>10}{:>14}",
            row.name,
            text(cost, 3),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2} x")),
            text(row.median(|round| round.deliveries_per_second), 0),
            text(row.median(|round| round.p50_ms), 2),
            text(row.median(|round| round.p99_ms), 2),
            text(row.median(|round| Some(round.bytes_per_connection)), 0),
        );
    }
}
