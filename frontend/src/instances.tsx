// The instances of a run in one table, of which only the rows on the screen exist.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useDocument } from "./data";
import type { RunPage, Statements, TableChunk } from "./format";
import { amount, count, duration, money, score } from "./figures";
import { Bucket, BUCKETS, Icon, Search, TOP, useKeys, useWidth } from "./parts";
import { address, choose, go, here, type Route } from "./route";
import { COLUMNS, type Column, chosen, useSelection } from "./selection";
import { List, type ListHandle } from "./vlist";

const TITLES: Record<Column, string> = { bucket: "Bucket", attempts: "Attempts", score: "Score", cost: "Cost", tokens: "Tokens", steps: "Steps", seconds: "Time", failure: "Failure", group: "Group" };
const TEXTUAL = new Set<Column>(["bucket", "failure", "group"]);

export const columnsOf = (query: URLSearchParams, table: TableChunk): Column[] => {
  const wanted = query.get("cols")?.split(",");
  const known: Record<Column, () => boolean> = {
    bucket: () => true,
    attempts: () => table.attempts.some((tries) => tries > 1),
    score: () => table.scores.some((each) => each !== null),
    cost: () => table.costs_usd.some((each) => each !== null),
    tokens: () => false,
    steps: () => table.steps.some(Boolean),
    seconds: () => table.seconds.some((each) => each !== null),
    failure: () => table.failures.some(Boolean),
    group: () => Object.keys(table.fields).length > 0,
  };
  return COLUMNS.filter((each) => (wanted ? wanted.includes(each) : known[each]()));
};

/** The columns that there is room for; the one that sorts always is. */
function fitting(columns: Column[], query: URLSearchParams, width: number): Column[] {
  const least = width < 700 ? ["cost", "seconds"] : width < 1000 ? ["bucket", "score", "cost", "steps", "seconds", "failure"] : null;
  const sort = query.get("sort")?.replace(/^-/, "");
  return least ? columns.filter((each) => least.includes(each) || each === sort) : columns;
}

const [NARROW, ROOMY] = [700, 1000];
const WIDEST_ID = 34;

/** The beginnings of the statements, once the table is there, where there is room beside the ids. */
function useStatements(page: RunPage, isRoomy: boolean): string[] | undefined {
  const [calm, setCalm] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setCalm(true), 200);
    return () => clearTimeout(timer);
  }, []);
  const wanted = calm && isRoomy && page.has_statements && page.table_chunks === 1;
  return useDocument<Statements>(wanted ? `runs/${page.entry.key}/statements-0` : null).value?.texts;
}

export function Instances(props: { page: RunPage; table: TableChunk; route: Route }) {
  const { page, table, route } = props;
  const { query } = route;
  const key = page.entry.key;
  const { selection, searching } = useSelection(page, table, query);
  const list = useRef<ListHandle | null>(null);
  const frame = useRef<HTMLDivElement>(null);
  const group = query.get("group") ?? Object.keys(table.fields)[0] ?? "";
  const width = useWidth();
  const columns = fitting(columnsOf(query, table), query, width);
  const statements = useStatements(page, width >= ROOMY);
  const idWidth = useMemo(() => `${table.ids.reduce((most, id) => Math.min(WIDEST_ID, Math.max(most, id.length)), 0)}ch`, [table.ids]);
  const rows = selection?.rows ?? [];
  // Keys may come faster than the page is drawn, so that they go by the address.
  const current = () => rows.findIndex((row) => table.ids[row] === here().query.get("sel"));
  const at = current();
  const open = (row: number) => go(address(["runs", key, "i", table.keys[row]], chosen(query)));
  const move = (by: number) => {
    if (!rows.length) return;
    const now = current();
    const next = now < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.max(0, Math.min(rows.length - 1, now + by));
    choose({ sel: table.ids[rows[next]] });
    list.current?.reveal(next, "nearest");
  };
  useEffect(() => {
    if (at >= 0) frame.current?.querySelector<HTMLElement>('[aria-selected="true"] a')?.focus({ preventScroll: true });
  }, [query.get("sel")]);
  useKeys({
    j: () => move(1),
    k: () => move(-1),
    Enter: (event) => {
      const target = event.target as HTMLElement;
      const now = current();
      if (target.closest("a, button, summary") && !target.closest(".list-item")) target.click();
      else if (now >= 0) open(rows[now]);
    },
    Escape: () => (query.get("sel") ? choose({ sel: null }) : choose({ q: null, b: null, f: null, only: null, field: null, value: null })),
  });
  const height = 30;
  const template = [`minmax(${width < NARROW ? 90 : 140}px, 3fr)`, ...columns.map((each) => WIDTHS[each])].join(" ");
  return (
    <section aria-label="Instances" ref={frame} class="instances">
      <div class="title-line">
        <h2>Instances <span class="muted number" role="status">{count(rows.length)}{rows.length === table.ids.length ? "" : ` of ${count(table.ids.length)}`}{searching ? ", searching statements…" : ""}</span></h2>
        <div class="actions">
          <span class="muted small wide-only" aria-hidden="true"><kbd>j</kbd> <kbd>k</kbd> move <kbd>Enter</kbd> open</span>
          <Search id="search" value={query.get("q") ?? ""} onChange={(q) => choose({ q })} label="Search ids and statements" placeholder={page.has_statements ? "Search ids, statements  /" : "Search ids  /"} />
          <Columns columns={columns} table={table} group={group} />
        </div>
      </div>
      <Filters query={query} buckets={selection?.buckets ?? new Map()} failures={selection?.failures ?? new Map()} page={page} />
      <div class="grid-table" role="table" aria-label="Instances" aria-rowcount={rows.length + 1}>
        <div class="grid-head" role="rowgroup">
          <div class="grid-row" role="row" style={{ gridTemplateColumns: template }}>
            <Head name="id" title="Instance" query={query} />
            {columns.map((each) => <Head key={each} name={each} title={each === "group" ? group || "Group" : TITLES[each]} query={query} number={!TEXTUAL.has(each)} />)}
          </div>
        </div>
        {rows.length === 0 ? (
          <p class="empty">No instance matches. <button type="button" class="quiet" onClick={() => choose({ q: null, b: null, f: null, only: null, field: null, value: null })}>Clear filters</button></p>
        ) : (
          <List
            role="rowgroup"
            size={rows.length}
            fixed
            subject={`${rows.length} ${height} ${statements ? "told" : ""}`}
            estimate={() => height}
            covered={TOP + 32}
            handle={list}
            render={(index) => (
              <Row row={rows[index]} index={index} selected={index === at} table={table} columns={columns} group={group} template={template} runKey={key} query={query} statement={statements?.[rows[index]]} idWidth={statements && idWidth} />
            )}
          />
        )}
      </div>
    </section>
  );
}

const WIDTHS: Record<Column, string> = { bucket: "112px", attempts: "52px", score: "60px", cost: "76px", tokens: "76px", steps: "60px", seconds: "84px", failure: "minmax(90px, 2fr)", group: "minmax(120px, 1.3fr)" };

function Head(props: { name: string; title: string; query: URLSearchParams; number?: boolean }) {
  const { name } = props;
  const sort = props.query.get("sort") ?? "";
  const direction = sort === name ? "ascending" : sort === `-${name}` ? "descending" : "none";
  const [first, second] = props.number ? [`-${name}`, name] : [name, `-${name}`];
  return (
    <div role="columnheader" aria-sort={direction} class={`${props.number ? "number" : ""} col-${name}`}>
      <button type="button" onClick={() => choose({ sort: sort === first ? second : sort === second ? null : first })}>
        <bdi>{props.title}</bdi>
        <span class="arrow" aria-hidden="true">{direction === "ascending" ? "↑" : direction === "descending" ? "↓" : ""}</span>
      </button>
    </div>
  );
}

function Row(props: { row: number; index: number; selected: boolean; table: TableChunk; columns: Column[]; group: string; template: string; runKey: string; query: URLSearchParams; statement?: string; idWidth?: string }) {
  const { row, table } = props;
  return (
    <div role="row" class="grid-row" aria-rowindex={props.index + 2} aria-selected={props.selected} style={{ gridTemplateColumns: props.template }}>
      <div role="cell" class="col-id">
        <span class="phone-only"><Icon bucket={table.buckets[row]} /></span>
        <a href={address(["runs", props.runKey, "i", table.keys[row]], chosen(props.query))} style={{ width: props.idWidth ?? "auto" }} title={table.ids[row]} onFocus={() => props.selected || choose({ sel: table.ids[row] })}><bdi>{table.ids[row]}</bdi></a>
        {props.statement && <span class="begins muted" title={props.statement}><bdi>{props.statement.replace(/^#+\s*/, "")}</bdi></span>}
      </div>
      {props.columns.map((each) => <Cell key={each} column={each} row={row} table={table} group={props.group} />)}
    </div>
  );
}

function Cell(props: { column: Column; row: number; table: TableChunk; group: string }) {
  const { column, row, table } = props;
  const name = `${TEXTUAL.has(column) ? "" : "number "}col-${column}`;
  if (column === "bucket") return <div role="cell" class={name}><Bucket name={table.buckets[row]} /></div>;
  if (column === "failure") {
    const kind = table.failures[row];
    return <div role="cell" class={name} title={table.messages[row] ?? ""}>{kind && <><span class="tag">{kind}</span> <bdi class="muted">{table.messages[row] ?? ""}</bdi></>}</div>;
  }
  if (column === "group") return <div role="cell" class={name} title={table.fields[props.group]?.[row] ?? ""}><bdi>{table.fields[props.group]?.[row] ?? ""}</bdi></div>;
  const text = {
    attempts: () => count(table.attempts[row]),
    score: () => score(table.scores[row]),
    cost: () => money(table.costs_usd[row]),
    tokens: () => amount(table.tokens[row]),
    steps: () => count(table.steps[row]),
    seconds: () => duration(table.seconds[row]),
  }[column]();
  return <div role="cell" class={name}>{text}</div>;
}

function toggled(query: URLSearchParams, name: string, value: string): string {
  const set = new Set(query.get(name)?.split(",").filter(Boolean));
  if (!set.delete(value)) set.add(value);
  return [...set].join(",");
}

function Filters(props: { query: URLSearchParams; buckets: Map<string, number>; failures: Map<string, number>; page: RunPage }) {
  const { query, buckets, failures, page } = props;
  const wanted = new Set(query.get("b")?.split(","));
  const kinds = new Set(query.get("f")?.split(","));
  const names = BUCKETS.filter((each) => buckets.has(each) || wanted.has(each));
  const kindNames = [...new Set([...failures.keys(), ...kinds])].filter(Boolean).sort((a, b) => (failures.get(b) ?? 0) - (failures.get(a) ?? 0));
  return (
    <div class="chips" role="group" aria-label="Filters">
      {names.map((name) => (
        <button key={name} type="button" class="chip" aria-pressed={wanted.has(name)} onClick={() => choose({ b: toggled(query, "b", name) })}>
          <Icon bucket={name} />{name}<b class="number">{count(buckets.get(name) ?? 0)}</b>
        </button>
      ))}
      {kindNames.slice(0, 8).map((name) => (
        <button key={`f-${name}`} type="button" class="chip" aria-pressed={kinds.has(name)} onClick={() => choose({ f: toggled(query, "f", name) })}>
          {name}<b class="number">{count(failures.get(name) ?? 0)}</b>
        </button>
      ))}
      {page.flips && (["gained", "lost"] as const).map((name) => (
        <button key={name} type="button" class="chip" aria-pressed={query.get("only") === name} onClick={() => choose({ only: query.get("only") === name ? null : name })}>
          {name === "gained" ? "↑" : "↓"} {name}<b class="number">{count(page.flips![name].length)}</b>
        </button>
      ))}
      {query.get("field") && (
        <button type="button" class="chip" aria-pressed={true} onClick={() => choose({ field: null, value: null })} title="Remove this filter">
          <bdi>{`${query.get("field")}: ${query.get("value") ?? ""}`}</bdi> ×
        </button>
      )}
    </div>
  );
}

function Columns(props: { columns: Column[]; table: TableChunk; group: string }) {
  const fields = Object.keys(props.table.fields);
  const toggle = (name: Column) => choose({ cols: COLUMNS.filter((each) => (each === name ? !props.columns.includes(each) : props.columns.includes(each))).join(",") });
  return (
    <details class="menu">
      <summary>Columns</summary>
      <div class="menu-body">
        {COLUMNS.map((each) => (
          <label key={each}><input type="checkbox" checked={props.columns.includes(each)} onChange={() => toggle(each)} /> {TITLES[each]}</label>
        ))}
        {fields.length > 0 && (
          <label>Group is{" "}
            <select value={props.group} onChange={(event) => choose({ group: event.currentTarget.value })}>{fields.map((each) => <option value={each}>{each}</option>)}</select>
          </label>
        )}
      </div>
    </details>
  );
}
