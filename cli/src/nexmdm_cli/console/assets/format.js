// Formatting of values.

const numbers = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const seconds = {
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
};
const thisYear = new Intl.DateTimeFormat([], seconds);
const anyYear = new Intl.DateTimeFormat([], { ...seconds, year: "numeric" });

const day = new Intl.DateTimeFormat([], { month: "short", day: "numeric", year: "numeric" });

export const NONE = "–";
export const number = (value) => (value == null ? NONE : numbers.format(value));
export const percent = (part, whole) => (whole ? (100 * part) / whole : 0);
export const time = (when) => clock.format(new Date(when));
export const yesNo = (value) => (value == null ? NONE : value ? "yes" : "no");
export const withUnit = (value, unit, digits = 0) =>
  value == null ? NONE : `${Number(value).toFixed(digits)} ${unit}`;
export const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/** A duration for people: 40 s, 12 min, 5 h, 3 d. */
export function duration(seconds) {
  if (seconds == null) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  if (whole < 5400) return `${Math.round(whole / 60)} min`;
  if (whole < 129600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} d`;
}

export const ago = (when) => (when ? `${duration((Date.now() - new Date(when)) / 1000)} ago` : "never");
export const until = (when) => `in ${duration((new Date(when) - Date.now()) / 1000)}`;

export function bytes(size) {
  if (size == null) return NONE;
  const step = size < 1024 ? 0 : Math.min(3, Math.floor(Math.log2(size) / 10));
  return `${(size / 1024 ** step).toFixed(step ? 1 : 0)} ${["bytes", "KiB", "MiB", "GiB"][step]}`;
}

export const date = (when) => day.format(new Date(when));

/** Day and time, with the year if it is not the current one. */
export function instant(when) {
  if (!when) return NONE;
  const at = new Date(when);
  return (at.getFullYear() === new Date().getFullYear() ? thisYear : anyYear).format(at);
}

/** The value of a datetime-local input for an instant, in the browser's time zone; empty for none. */
export function localInput(when) {
  const at = new Date(when);
  if (!when || Number.isNaN(at.getTime())) return "";
  return new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** The instant of a datetime-local input, for the API; null for none. */
export const fromLocal = (text) => (text ? new Date(text).toISOString() : null);

/** A share in percent; only exact values are shown as 0 % and 100 %. */
export function share(part, whole) {
  const exact = percent(part, whole);
  if (exact > 0 && exact < 1) return "< 1 %";
  return exact > 99 && exact < 100 ? "> 99 %" : `${Math.round(exact)} %`;
}

/** The last part of an ARN, which identifies the caller. */
export const who = (arn) => (arn ? arn.replace(/^arn:aws[\w-]*:(?:iam|sts)::\d+:(?:user|assumed-role)\//, "") : NONE);
