//! One page with plots, which needs nothing else.

use std::error::Error;
use std::fmt::Write as _;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::result::{BlkResult, BlkResults, Measured};
use crate::markup::escaped;

const SIZE: (u32, u32) = (860, 400);
/// Of Okabe and Ito: all eyes can tell them apart.
pub(crate) const COLORS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
];

pub(crate) const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
svg { width: 100%; height: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
th:nth-child(2), td:nth-child(2) { text-align: left }
tr.ours { background: #eef5fb; font-weight: 600 }
.legend { margin: .5rem 0; font-size: .9rem } .legend span { margin-right: 1.2rem; white-space: nowrap }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; border-radius: 2px }
.note { color: #555; font-size: .9rem }";

/// A line of a plot.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) color: RGBColor,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Whether the points of lines are to be seen.
#[derive(Clone, Copy)]
pub(crate) enum Points {
    Shown,
    Hidden,
}

/// The page.
pub fn html(results: &BlkResults) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>vmm bench blk</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>vmm bench blk</h1>\n<p>{}.</p>\n",
        escaped(&results.workload)
    );
    section(&mut page, "Requests per second over depth", &over_depth(results, Measured::rate));
    let title = "Processor time of the back end for each request, in microseconds";
    section(&mut page, title, &over_depth(results, Measured::cpu_us));
    for result in &results.results {
        let title =
            format!("Share of requests done within so many microseconds, depth {}", result.depth);
        section(&mut page, &title, &cumulative(result));
    }
    page += "<h2>All figures</h2>\n<table><tr><th>depth<th>contestant<th>IOPS<th>slowest to fastest round\
             <th>p50 us<th>p99 us<th>p99.9 us<th>CPU us/IO<th>calls/IO</tr>\n";
    for result in &results.results {
        for measured in contestants(result) {
            row(&mut page, result.depth, measured, measured.name == result.ours.name);
        }
    }
    page += "</table>\n<p class=\"note\">Medians of rounds in which all took turns. Native requests go straight to \
             the kernel, by the faster of io_uring and pread or pwrite. Processor time and system calls are those of \
             the back end's processes; a dash where they could not be counted.</p>\n</body></html>\n";
    page
}

fn row(page: &mut String, depth: u16, measured: &Measured, ours: bool) {
    let (slowest, fastest) = measured.spread();
    let class = if ours { " class=\"ours\"" } else { "" };
    let calls = measured.system_calls().map_or("-".into(), |calls| format!("{calls:.3}"));
    // Writing to a string cannot fail.
    let _ = writeln!(
        page,
        "<tr{class}><td>{depth}<td>{}<td>{:.0}<td>{:.0} to {:.0}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.2}<td>{calls}</tr>",
        escaped(&measured.name),
        measured.rate(),
        slowest,
        fastest,
        measured.percentile_us(50.0),
        measured.percentile_us(99.0),
        measured.percentile_us(99.9),
        measured.cpu_us(),
    );
}

pub(crate) fn section(page: &mut String, title: &str, plot: &str) {
    let _ = writeln!(page, "<h2>{}</h2>\n{plot}", escaped(title));
}

fn contestants(result: &BlkResult) -> impl Iterator<Item = &Measured> {
    [&result.native, &result.ours]
        .into_iter()
        .chain(&result.without_polling)
        .chain(&result.others)
        .chain(&result.peers)
}

/// The same with the colour of each, which is the same in all plots.
fn coloured(result: &BlkResult) -> impl Iterator<Item = (&Measured, RGBColor)> {
    contestants(result).zip(COLORS.iter().copied().cycle())
}

/// A line for each contestant.
fn over_depth(results: &BlkResults, value: impl Fn(&Measured) -> f64) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for result in &results.results {
        for (measured, color) in coloured(result) {
            let native = measured.name.starts_with("native");
            let name = if native { "native" } else { measured.name.as_str() };
            let value = value(measured);
            // What native requests cost is not measured: they have no back end.
            if value <= 0.0 {
                continue;
            }
            let point = (f64::from(result.depth), value);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name: name.into(), color, points: vec![point] }),
            }
        }
    }
    let (depths, values) = bounds(&lines);
    let depths = (depths.0 * 0.9..depths.1 * 1.1).log_scale();
    plot(&lines, Points::Shown, depths, 0.0..values.1 * 1.1, "depth")
}

/// Of each contestant, how many requests were done by when.
fn cumulative(result: &BlkResult) -> String {
    let line = |(measured, color): (&Measured, RGBColor)| {
        let latency = measured.latency();
        let points = latency.iter_quantiles(20).map(|step| {
            (step.value_iterated_to() as f64 / 1000.0, 100.0 * step.quantile_iterated_to())
        });
        Line { name: measured.name.clone(), color, points: points.collect() }
    };
    let lines: Vec<Line> = coloured(result).map(line).collect();
    let (times, _) = bounds(&lines);
    let times = (times.0.max(0.1)..times.1.max(1.0)).log_scale();
    plot(&lines, Points::Hidden, times, 0.0..101.0, "microseconds")
}

/// The least and the most of both directions.
pub(crate) fn bounds(lines: &[Line]) -> ((f64, f64), (f64, f64)) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let least = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::INFINITY, f64::min);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1.0, f64::max);
    let finite = |value: f64| if value.is_finite() { value } else { 1.0 };
    ((finite(least(|p| p.0)), most(|p| p.0)), (finite(least(|p| p.1)), most(|p| p.1)))
}

/// A plot under the names of its lines.
pub(crate) fn plot<X>(
    lines: &[Line],
    points: Points,
    x: X,
    y: std::ops::Range<f64>,
    x_name: &str,
) -> String
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut svg = String::new();
    let mut legend = String::new();
    for Line { name, color: RGBColor(red, green, blue), .. } in lines {
        let mark = format!("<i style=\"background:rgb({red},{green},{blue})\"></i>");
        let _ = write!(legend, "<span>{mark}{}</span>", escaped(name));
    }
    match draw(&mut svg, lines, points, x, y, x_name) {
        Ok(()) => format!("<p class=\"legend\">{legend}</p>\n{svg}"),
        Err(error) => format!("<p>This plot cannot be drawn: {}.</p>", escaped(&error.to_string())),
    }
}

fn draw<X>(
    svg: &mut String,
    lines: &[Line],
    points: Points,
    x: X,
    y: std::ops::Range<f64>,
    x_name: &str,
) -> Result<(), Box<dyn Error>>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(0xe4, 0xe4, 0xe4))
        .axis_style(RGBColor(0x88, 0x88, 0x88))
        .label_style(("sans-serif", 14))
        .x_desc(x_name)
        .y_label_formatter(&|value| short(*value))
        .x_label_formatter(&|value| short(*value))
        .draw()?;
    let size = match points {
        Points::Shown => 4,
        Points::Hidden => 0,
    };
    for Line { color, points, .. } in lines {
        let style = color.stroke_width(3).filled();
        chart.draw_series(LineSeries::new(points.iter().copied(), style).point_size(size))?;
    }
    area.present()?;
    Ok(())
}

/// 1500000 as 1.5M.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "K"),
        _ => (value, ""),
    };
    let whole = value.fract() == 0.0 || value >= 100.0;
    let digits = usize::from(!whole);
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.5, 4.0, 150.4, 2500.0, 1e6].map(short);
        assert_eq!(shown, ["0.5", "4", "150", "2.5K", "1M"]);
    }

    #[test]
    fn a_page_without_results_is_a_page() {
        let results = BlkResults { workload: "<nothing>".into(), results: Vec::new() };
        let page = html(&results);
        assert!(page.contains("&lt;nothing&gt;") && page.ends_with("</html>\n"));
    }
}
