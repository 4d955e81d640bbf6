//! `--plot`: throughput and latency over time, and how latency rises towards the slowest requests, as SVG.
//!
//! ```text
//! ┌ throughput, failures      ┐   a grey ground is the warm-up, which no figure of the report counts
//! ├ latency of each operation ┤   p50, p99, p99.9 and max of each second, logarithmic
//! └ latency by percentile     ┘   the HDR plot: response time, and the parts of requests on a scale of nines
//! ```
//!
//! Of several rounds the one with the median throughput is drawn.

use std::ops::Range;

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::prelude::{Color, IntoFont, IntoLogRange, LineSeries, RGBColor, TextStyle, WHITE};

use crate::result::{Document, Latency, OpResult, Part, Round, SecondOpResult, SecondResult, middle};
use crate::tally::as_f64;
use crate::text::{grouped, rate};

const WIDTH: u32 = 1000;
const TITLE_HEIGHT: u32 = 64;
const PANEL_HEIGHT: u32 = 280;

const INK: RGBColor = RGBColor(60, 60, 60);
const GROUND: RGBColor = RGBColor(235, 235, 235);
const GREEN: RGBColor = RGBColor(44, 140, 70);
const RED: RGBColor = RGBColor(200, 40, 40);
const BLUE: RGBColor = RGBColor(50, 100, 180);
const ORANGE: RGBColor = RGBColor(225, 130, 20);
const VIOLET: RGBColor = RGBColor(130, 80, 160);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Of = fn(&Latency) -> f64;
type CountOf = fn(&SecondOpResult) -> u64;

const LINES: [(&str, RGBColor, Of); 4] = [
    ("max", VIOLET, |l| l.max_us),
    ("p99.9", RED, |l| l.p999_us),
    ("p99", ORANGE, |l| l.p99_us),
    ("p50", BLUE, |l| l.p50_us),
];

/// The picture.
pub(crate) fn svg(document: &Document) -> Result<String, String> {
    let Some((number, round)) = middle(&document.rounds) else {
        return Err("nothing was measured, so there is nothing to draw".into());
    };
    let mut text = String::new();
    let panels = u32::try_from(2 + round.ops.len()).unwrap_or(2);
    draw(&mut text, document, number, round, TITLE_HEIGHT + panels * PANEL_HEIGHT)
        .map_err(|error| format!("the plot could not be drawn: {error}"))?;
    Ok(text)
}

fn draw(text: &mut String, document: &Document, number: usize, round: &Round, height: u32) -> Drawn {
    let area = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let (title, mut rest) = area.split_vertically(TITLE_HEIGHT);
    let [first, second] = titles(document, number, round);
    title.draw_text(&first, &written(18), (20, 12))?;
    title.draw_text(&second, &written(13), (20, 40))?;
    let (panel, below) = rest.split_vertically(PANEL_HEIGHT);
    throughput(&panel, round)?;
    rest = below;
    for name in round.ops.keys() {
        let (panel, below) = rest.split_vertically(PANEL_HEIGHT);
        latencies(&panel, round, name)?;
        rest = below;
    }
    spectrum(&rest, round)?;
    area.present()?;
    Ok(())
}

fn titles(document: &Document, number: usize, round: &Round) -> [String; 2] {
    let settings = &document.settings;
    let pace = match settings.rate {
        Some(rate) => format!("open loop, {}/s asked for", grouped(rate)),
        None => "closed loop".into(),
    };
    let failed = if round.failed() > 0 { format!(", {} failed", grouped(round.failed())) } else { String::new() };
    let first = format!("{}/s: workload {}, {pace}{failed}", rate(round.per_second()), settings.workload);
    let rounds = match document.rounds.len() {
        0 | 1 => String::new(),
        many => format!(", round {} of {many} (the median)", number + 1),
    };
    let second = format!(
        "{} connections x {} in flight, {} keys {}, values of {} bytes, route {}{rounds}; {}",
        settings.connections,
        settings.pipeline,
        grouped(settings.keys),
        settings.key_dist,
        settings.value_bytes,
        settings.route,
        document.server.topology.as_deref().unwrap_or("another server").replace('×', "x"),
    );
    [first, second]
}

fn throughput(area: &Area<'_>, round: &Round) -> Drawn {
    let of = |second: &SecondResult, count: CountOf| as_f64(second.ops.values().map(count).sum());
    let whole: Vec<&SecondResult> =
        round.seconds.iter().filter(|second| !second.partial && second.part != Part::Late).collect();
    let most = whole.iter().map(|second| of(second, |op| op.ok + op.failed)).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("answered per second", written(15))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(times(round), 0.0..most * 1.1)?;
    chart.draw_series(warm_up(round, 0.0..most * 1.1))?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("seconds")
        .x_label_formatter(&|value| second(*value))
        .y_label_formatter(&|value| rate(*value))
        .draw()?;
    let failed = whole.iter().any(|second| of(second, |op| op.failed) > 0.0);
    let lines: [(&str, RGBColor, CountOf); 2] = [("ok", GREEN, |op| op.ok), ("failed", RED, |op| op.failed)];
    for (name, color, count) in lines.into_iter().take(if failed { 2 } else { 1 }) {
        let points: Vec<(f64, f64)> = whole.iter().map(|second| (middle_of(second), of(second, count))).collect();
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, color.filled())))?;
        chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?.label(name).legend(mark(color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(GROUND)
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

fn latencies(area: &Area<'_>, round: &Round, name: &str) -> Drawn {
    let usual = round.ops.get(name).and_then(|op| op.response).map_or(0.0, |latency| latency.p99_us);
    let seen = round.seconds.iter().filter_map(|second| {
        let response = second.ops.get(name)?.response?;
        // The last few answers behind the end say nothing, unless they are what was slow.
        let tells = second.part != Part::Late || response.max_us > usual;
        tells.then_some((middle_of(second), response))
    });
    let seen: Vec<(f64, Latency)> = seen.collect();
    let range = milliseconds(seen.iter().map(|(_, latency)| (latency.p50_us, latency.max_us)));
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{name}: response time in each second"), written(15))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(times(round), range.clone().log_scale())?;
    chart.draw_series(warm_up(round, range))?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("seconds")
        .x_label_formatter(&|value| second(*value))
        .y_label_formatter(&|value| in_millis(*value))
        .draw()?;
    for (label, color, of) in LINES {
        let points: Vec<(f64, f64)> = seen.iter().map(|(at, latency)| (*at, of(latency) / 1e3)).collect();
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, color.filled())))?;
        chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?.label(label).legend(mark(color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(GROUND)
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

/// A percentile's place on a scale of nines: 0 % at 0, 90 % at 1, 99 % at 2. The slowest of `count` stands at its end.
fn nines(part: f64, count: u64) -> f64 {
    let slower = (1.0 - part).max(1.0 / as_f64(count.max(1)));
    -slower.log10()
}

fn spectrum(area: &Area<'_>, round: &Round) -> Drawn {
    let any: Vec<(&String, &OpResult)> = round.ops.iter().filter(|(_, op)| !op.spectrum.is_empty()).collect();
    let most = any.iter().map(|(_, op)| nines(1.0, op.ok)).fold(1.0, f64::max);
    let range = milliseconds(any.iter().filter_map(|(_, op)| op.response).map(|all| (all.min_us, all.max_us)));
    let mut chart = ChartBuilder::on(area)
        .caption("response time by percentile, of all measured requests", written(15))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..most, range.log_scale())?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("percent of the requests that were no slower")
        .x_label_formatter(&|place| percent(*place))
        .y_label_formatter(&|value| in_millis(*value))
        .draw()?;
    for ((name, op), color) in any.into_iter().zip([BLUE, ORANGE]) {
        let mut points: Vec<(f64, f64)> =
            op.spectrum.iter().map(|(part, micros)| (nines(*part, op.ok), micros.max(MICROS_MIN) / 1e3)).collect();
        points.dedup_by(|next, kept| next.0 <= kept.0);
        chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?.label(name.as_str()).legend(mark(color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(GROUND)
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

/// Anything quicker is drawn as this: a logarithmic scale has no nought.
const MICROS_MIN: f64 = 1.0;

/// From the least to the most of these microseconds, in milliseconds, with some air.
fn milliseconds(all: impl Iterator<Item = (f64, f64)>) -> Range<f64> {
    let (least, most) = all.fold((f64::MAX, MICROS_MIN), |(least, most), (from, to)| (least.min(from), most.max(to)));
    let least = least.clamp(MICROS_MIN, most);
    least / 1e3 * 0.7..most / 1e3 * 1.5
}

fn times(round: &Round) -> Range<f64> {
    let end = round.seconds.iter().map(|second| second.second + 1).max().unwrap_or(1);
    // Room for the legend.
    0.0..as_f64(end) * 1.1
}

fn middle_of(second: &SecondResult) -> f64 {
    as_f64(second.second) + 0.5
}

fn warm_up(round: &Round, height: Range<f64>) -> Option<Rectangle<(f64, f64)>> {
    let end =
        round.seconds.iter().filter(|second| second.part == Part::WarmUp).map(|second| second.second + 1).max()?;
    Some(Rectangle::new([(0.0, height.start), (as_f64(end), height.end)], GROUND.filled()))
}

fn mark(color: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2))
}

fn written(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// `0.25 ms`, `40 ms`.
fn in_millis(value: f64) -> String {
    let digits = match value {
        value if value < 0.1 => 3,
        value if value < 1.0 => 2,
        value if value < 10.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} ms")
}

/// `99.9 %` at 3.
fn percent(nines: f64) -> String {
    let part = 100.0 * (1.0 - 10_f64.powf(-nines));
    let text = format!("{part:.5}");
    if is_whole(nines) { format!("{} %", text.trim_end_matches('0').trim_end_matches('.')) } else { String::new() }
}

/// Whole seconds only.
fn second(value: f64) -> String {
    if is_whole(value) { format!("{value:.0}") } else { String::new() }
}

fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() < 1e-9
}

#[cfg(test)]
mod tests {
    use super::{nines, percent};

    #[test]
    fn percentiles_stand_on_a_scale_of_nines() {
        assert!(nines(0.0, 1000).abs() < 1e-9);
        assert!((nines(0.9, 1000) - 1.0).abs() < 1e-9 && (nines(0.999, 1000) - 3.0).abs() < 1e-9);
        assert!((nines(1.0, 1000) - 3.0).abs() < 1e-9, "the slowest of a thousand");
        assert_eq!([percent(0.0), percent(1.0), percent(3.0)], ["0 %", "90 %", "99.9 %"]);
        assert_eq!(percent(1.5), "", "only whole nines have a label");
    }
}
