// A table that stays fast with ten thousand rows, because it renders only one page of them.

import { html } from "/assets/vendor/preact-htm.module.js";
import { number } from "/assets/format.js";
import { Empty } from "/assets/ui.js";

export const ROWS = 100;

const collator = new Intl.Collator([], { numeric: true });

function compare(a, b) {
  if (a == null || b == null) return (a == null) - (b == null) || 0;
  return typeof a === "string" ? collator.compare(a, b) : a < b ? -1 : a > b ? 1 : 0;
}

/** Rows sorted by `sort`, a column's key, with a leading minus for descending order. Rows without a value come last. */
export function sorted(rows, columns, sort) {
  const column = columns.find(({ key }) => key === sort.replace("-", ""));
  if (!column) return rows;
  const down = sort.startsWith("-");
  const keyed = rows.map((row) => [column.value(row), row]);
  keyed.sort(([a], [b]) => (down && a != null && b != null ? -compare(a, b) : compare(a, b)));
  return keyed.map(([, row]) => row);
}

/**
 * columns: [{key, label, cell(row), value(row)?, kind?}]; a column with a `value` can be sorted.
 * sort, onSort: as for `sorted`. select: {chosen: Set, onChange(Set), id(row), name(row)}.
 */
export function Table({ caption, columns, rows, id, sort, onSort, page = 1, onPage, select, empty }) {
  if (!rows.length) return html`<${Empty}>${empty}<//>`;
  const first = (Math.min(page, Math.ceil(rows.length / ROWS)) - 1) * ROWS;
  const shown = onPage ? rows.slice(first, first + ROWS) : rows;
  return html`
    <div class="scroll">
      <table>
        <caption class="hidden">${caption}</caption>
        <thead>
          <tr>
            ${select && html`<th class="narrow"><${SelectAll} select=${select} rows=${rows} /></th>`}
            ${columns.map((column) => html`<${Head} key=${column.key} column=${column} sort=${sort} onSort=${onSort} />`)}
          </tr>
        </thead>
        <tbody>
          ${shown.map((row) => html`<${Row} key=${id(row)} row=${row} columns=${columns} select=${select} />`)}
        </tbody>
      </table>
    </div>
    ${onPage && rows.length > ROWS && html`<${Pager} first=${first} total=${rows.length} onPage=${onPage} />`}
  `;
}

function Head({ column, sort, onSort }) {
  if (!column.value || !onSort) return html`<th scope="col" class=${column.kind}>${column.label}</th>`;
  const active = sort?.replace("-", "") === column.key;
  const down = active && sort.startsWith("-");
  return html`
    <th scope="col" class=${column.kind} aria-sort=${active ? (down ? "descending" : "ascending") : undefined}>
      <button type="button" class="sort" onClick=${() => onSort(active && !down ? `-${column.key}` : column.key)}>
        ${column.label}<span aria-hidden="true">${active ? (down ? " ↓" : " ↑") : ""}</span>
      </button>
    </th>
  `;
}

function Row({ row, columns, select }) {
  const chosen = select?.chosen.has(select.id(row));
  const toggle = () => {
    const next = new Set(select.chosen);
    if (!next.delete(select.id(row))) next.add(select.id(row));
    select.onChange(next);
  };
  return html`
    <tr class=${chosen ? "chosen" : ""}>
      ${select && html`
        <td class="narrow">
          <input type="checkbox" aria-label="Select ${select.name(row)}" checked=${chosen} onChange=${toggle} />
        </td>
      `}
      ${columns.map((column) =>
        column.head
          ? html`<th scope="row" key=${column.key} class=${column.kind}>${column.cell(row)}</th>`
          : html`<td key=${column.key} class=${column.kind}>${column.cell(row)}</td>`)}
    </tr>
  `;
}

/** All rows that match the filter, not only those on the current page. */
function SelectAll({ select, rows }) {
  const all = rows.every((row) => select.chosen.has(select.id(row)));
  const toggle = () => select.onChange(all ? new Set() : new Set(rows.map(select.id)));
  const some = !all && select.chosen.size > 0;
  return html`
    <input type="checkbox" aria-label="Select all ${number(rows.length)}" checked=${all} indeterminate=${some}
      onChange=${toggle} />
  `;
}

function Pager({ first, total, onPage }) {
  const page = first / ROWS + 1;
  const last = Math.ceil(total / ROWS);
  return html`
    <nav class="pager row" aria-label="Pages of the table">
      <button type="button" disabled=${page === 1} onClick=${() => onPage(page - 1)}>Previous</button>
      <span aria-live="polite">${number(first + 1)}–${number(Math.min(first + ROWS, total))} of ${number(total)}</span>
      <button type="button" disabled=${page === last} onClick=${() => onPage(page + 1)}>Next</button>
    </nav>
  `;
}
