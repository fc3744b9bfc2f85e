// A value over time, drawn by uPlot in the page's colours, with a text description for screen readers.

import { html, useEffect, useMemo, useRef } from "/assets/vendor/preact-htm.module.js";
import { time, withUnit } from "/assets/format.js";
import { series } from "/assets/history.js";

const HEIGHT = 150;

/**
 * rows: oldest first; name: of the column; min, max: of the axis if the value has bounds; at: formats the time of a
 * value; latest: the word before the last value; seconds: the length of the axis, by default that of the rows; none: the
 * text if there are no values; together: charts with this name share their cursor.
 */
export function Chart({
  title,
  unit,
  rows,
  name,
  min,
  max,
  seconds,
  at = time,
  latest = "now",
  none = "No heartbeat in this period has this value.",
  together = "device",
}) {
  const canvas = useRef();
  const pointed = useRef();
  const drawn = useRef();
  const data = useMemo(() => series(rows, name), [rows, name]);
  // For hourly rows the minimum is that of their minima, not of their last values.
  const [lows, highs, values] = useMemo(
    () => [1, 2, 3].map((n) => (data[n] ?? data[1]).filter((value) => value !== null)),
    [data],
  );
  const banded = data.length > 2;
  const empty = values.length === 0;

  const point = ({ data: [times, ...lines], cursor: { idx } }) => {
    const value = idx == null ? null : lines.at(-1)[idx];
    pointed.current.textContent = value == null ? "" : `${say(value, unit)} at ${at(times[idx] * 1000)}`;
  };

  useEffect(() => {
    if (empty) return undefined;
    const draw = () => {
      drawn.current?.destroy();
      drawn.current = new window.uPlot(options(canvas.current, [min, max], point, { together, banded, seconds }), data, canvas.current);
    };
    draw();
    const resized = new ResizeObserver(() =>
      drawn.current.setSize({ width: canvas.current.clientWidth, height: HEIGHT }),
    );
    const themes = new MutationObserver(draw);
    const system = matchMedia("(prefers-color-scheme: dark)");
    resized.observe(canvas.current);
    themes.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    system.addEventListener("change", draw);
    return () => {
      resized.disconnect();
      themes.disconnect();
      system.removeEventListener("change", draw);
      drawn.current.destroy();
      drawn.current = null;
    };
  }, [empty, banded, seconds, min, max]);

  useEffect(() => drawn.current?.setData(data), [data]);

  const last = values.at(-1);
  const words = empty
    ? "not reported"
    : `${latest} ${say(last, unit)}, lowest ${say(lowest(lows), unit)}, highest ${say(highest(highs), unit)}`;
  return html`
    <figure class="chart">
      <figcaption>
        <strong>${title}</strong>
        <span class="pointed" ref=${pointed} aria-hidden="true"></span><span class="muted">${words}</span>
      </figcaption>
      ${
        empty
          ? html`<p class="empty">${none}</p>`
          : html`<div ref=${canvas} role="img" aria-label="${title} over time: ${words}"></div>`}
    </figure>
  `;
}

// Not Math.min(...values): a two-day history may have more values than a call can have arguments.
const lowest = (values) => values.reduce((a, b) => (b < a ? b : a));
const highest = (values) => values.reduce((a, b) => (b > a ? b : a));
const say = (value, unit) => withUnit(value, unit, Number.isInteger(value) ? 0 : 1);

function options(element, [min, max], point, { together, banded, seconds }) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--muted"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui",
  };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    cursor: { sync: { key: window.uPlot.sync(together).key }, points: { size: 6 }, y: false },
    legend: { show: false },
    hooks: { setCursor: [point] },
    scales: { x: { range: axisOf(seconds) }, y: min === undefined ? { range: padded } : { range: [min, max] } },
    axes: [
      { ...axis, values: dates, space: 60, size: 34 },
      { ...axis, size: 46 },
    ],
    // The band between minimum and maximum of each hour.
    ...(banded && { bands: [{ series: [2, 1], fill: colour("--band") }] }),
    series: [{}, ...(banded ? [EDGE, EDGE] : []), { stroke: colour("--accent"), width: 1.5, points: { show: few } }],
  };
}

const EDGE = { stroke: "transparent", points: { show: false } };

// A line does not show an isolated point.
const FEW = 30;
const few = ({ data }, n) => data[n].filter((value) => value !== null).length < FEW;

const ALONE = 300;
/**
 * The time axis: the range chosen by dragging; or the last `seconds`; or from the first value to the last, with a margin
 * around a single value, for which uPlot would show years.
 */
const axisOf = (seconds) => ({ data: [times] }, from, to) => {
  const [first, last] = [times[0], times.at(-1)];
  if (from > first || to < last) return [from, to];
  const now = Date.now() / 1000;
  if (seconds) return [now - seconds, Math.max(last, now)];
  return first === last ? [first - ALONE, last + ALONE] : [first, last];
};

const padded = (_, low, high) => {
  const room = Math.max(1, (high - low) * 0.1);
  return [low - room, high + room];
};

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat([], { month: "short", day: "numeric" });

/** Hours and minutes, with seconds if the ticks are close, and the day below where it changes. */
function dates(_, ticks, _axis, _space, step) {
  let before = null;
  return ticks.map((tick) => {
    const at = new Date(tick * 1000);
    const today = day.format(at);
    if (step >= 86_400) return today;
    const hour = step < 60 ? time(at) : clock.format(at);
    const text = today === before ? hour : `${hour}\n${today}`;
    before = today;
    return text;
  });
}
