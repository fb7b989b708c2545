/** Numbers, dates and names as people read them. */

import { texts } from "./texts";

const LANGUAGE = "en";
const BYTES = ["B", "kB", "MB", "GB", "TB"];

/** A size in bytes, in powers of 1000. */
export function bytes(size: number): string {
  let value = size;
  let unit = 0;
  while (value >= 1000 && unit < BYTES.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toLocaleString(LANGUAGE, { maximumFractionDigits: unit && value < 100 ? 1 : 0 })} ${BYTES[unit]}`;
}

export function count(value: number): string {
  return value.toLocaleString(LANGUAGE);
}

/** A volume in mL: three figures, or all before the point. */
export function millilitres(value: number | null): string {
  if (value === null) {
    return texts.none;
  }
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString(LANGUAGE, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A mean in HU, with a real minus sign. */
export function hounsfield(value: number | null): string {
  return value === null ? texts.none : Math.round(value).toLocaleString(LANGUAGE).replace("-", "−");
}

/** A person's name (DICOM PN): the alphabetic group, family name first. */
export function personName(value: string): string {
  const [family = "", given = "", middle = "", prefix = "", suffix = ""] = (value.split("=")[0] ?? "").split("^");
  const first = [prefix, given, middle].filter(Boolean).join(" ");
  return [[family, first].filter(Boolean).join(", "), suffix].filter(Boolean).join(" ").trim() || texts.unnamed;
}

/** A date (DICOM DA `YYYYMMDD`, or ISO 8601). */
export function date(value: string): string {
  const [, year, month, day] = /^(\d{4})-?(\d{2})-?(\d{2})/.exec(value) ?? [];
  return year ? `${year}-${month}-${day}` : value;
}

/** How long ago a moment was. */
export function age(value: string | null, now = Date.now()): string {
  if (!value) {
    return texts.none;
  }
  const seconds = Math.max(0, Math.round((now - Date.parse(value)) / 1000));
  if (seconds < 60) {
    return texts.ago(seconds, "s");
  }
  if (seconds < 3600) {
    return texts.ago(Math.round(seconds / 60), "min");
  }
  return seconds < 48 * 3600 ? texts.ago(Math.round(seconds / 3600), "h") : texts.ago(Math.round(seconds / 86400), "d");
}

/** The segment's name as words: `lung_upper_lobe_left` to `Lung upper lobe left`. */
export function words(name: string): string {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
