// Two to ten runs on the same instances: the differences first.

import { useMemo, useRef } from "preact/hooks";
import { useDocument, useDocuments } from "./data";
import type { ComparisonPage, Estimate, Index, InstancePage, RunEntry, RunPage, TableChunk } from "./format";
import { amount, count, duration, money, pValue, percent, points } from "./figures";
import { Bucket, Icon, Loading, Problem, Rate, Search, Section, TOP, join, nameOf, useKeys, useWidth } from "./parts";
import { Interval, Lines, Scatter, type Series } from "./plots";
import { address, choose, here, type Route } from "./route";
import { outcomeOf } from "./instance";
import { settingText } from "./run";
import { PatchText } from "./texts";
import { Trajectory } from "./trajectory";
import { List, type ListHandle } from "./vlist";

const LETTERS = "ABCDEFGHIJ";
const LEVEL = 0.05;

export function Compare(props: { index: Index; route: Route }) {
  const { index, route } = props;
  const wanted = route.path.slice(1);
  const runs = wanted.map((key) => index.runs.find((run) => run.key === key)).filter((run) => run !== undefined);
  if (runs.length < 2) return <main id="main" tabIndex={-1}><p class="problem">These runs are not all in this report: {wanted.join(", ")}. <a href="#/">Choose others</a></p></main>;
  return <Compared index={index} runs={runs} route={route} />;
}

function Compared(props: { index: Index; runs: RunEntry[]; route: Route }) {
  const { runs, route, index } = props;
  const { values: pages, complete, error } = useDocuments<RunPage>(runs.map((run) => `runs/${run.key}/run`));
  const tableKeys = complete ? pages.flatMap((page) => Array.from({ length: page.table_chunks }, (_, at) => `runs/${page.entry.key}/table-${at}`)) : [];
  const chunks = useDocuments<TableChunk>(tableKeys);
  const tables = useMemo(() => {
    if (!complete || !chunks.complete) return null;
    let at = 0;
    return pages.map((page) => join(chunks.values.slice(at, (at += page.table_chunks))));
  }, [complete, chunks.complete, ...chunks.values, runs.map((run) => run.key).join()]);
  const failed = error ?? chunks.error;
  const side = route.query.get("i");
  return (
    <main id="main" tabIndex={-1}>
      <div class="title-line"><h1>Compare {count(runs.length)} runs</h1></div>
      {failed && <Problem error={failed} />}
      <Sides runs={runs} pages={pages} complete={complete} />
      <Differences index={index} runs={runs} />
      {complete && <Settings runs={runs} pages={pages} />}
      {!tables && !failed && <Loading what="the instances" />}
      {tables && side !== null && <SideBySide runs={runs} tables={tables} id={side} route={route} />}
      {tables && <Grid runs={runs} tables={tables} route={route} />}
      {tables && complete && <Curves runs={runs} pages={pages} tables={tables} />}
    </main>
  );
}

function Sides(props: { runs: RunEntry[]; pages: RunPage[]; complete: boolean }) {
  return (
    <div class="table-frame" tabIndex={0} role="region" aria-label="Runs">
      <table class="sides">
        <thead><tr><th><span class="unseen">Letter</span></th><th>Run</th><th>Resolved, 95 %</th><th class="number">n</th><th class="number">Cost</th><th class="number">per resolved</th><th class="number">Time per resolved</th><th class="number">Tokens</th></tr></thead>
        <tbody>
          {props.runs.map((run, at) => {
            const summary = props.complete ? props.pages[at].summary : {};
            const rate = (summary.resolve_rate ?? run.rate) as Estimate | null;
            return (
              <tr key={run.key}>
                <th scope="row"><span class={`letter back-series-${at}`}>{LETTERS[at]}</span></th>
                <td class="run-name"><a href={address(["runs", run.key])}><bdi>{nameOf(run)}</bdi></a><div class="muted small"><bdi class="id">{run.id}</bdi></div></td>
                <td class="rate-cell"><Rate estimate={rate} /><Interval estimate={rate} label={`Run ${LETTERS[at]} resolved`} /></td>
                <td class="number">{count(rate?.n)}</td>
                <td class="number">{money(run.cost_usd)}</td>
                <td class="number">{money(summary.per_resolved?.cost_usd?.value)}</td>
                <td class="number">{duration(summary.per_resolved?.seconds?.value)}</td>
                <td class="number">{amount(run.tokens || null)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** The comparison of two runs, and whether it is the other way round; null where there is none. */
function findPair(index: Index, a: RunEntry, b: RunEntry): { key: string; turned: boolean } | null {
  if (index.pairs.some((pair) => pair.a === a.key && pair.b === b.key)) return { key: `comparisons/${a.key}+${b.key}`, turned: false };
  return index.pairs.some((pair) => pair.a === b.key && pair.b === a.key) ? { key: `comparisons/${b.key}+${a.key}`, turned: true } : null;
}

/** Holm's correction: what to take instead of each p-value where several are looked at. */
export function correct(values: (number | null)[]): (number | null)[] {
  const known = values.flatMap((value, at) => (value === null ? [] : [{ value, at }])).sort((a, b) => a.value - b.value);
  const corrected: (number | null)[] = values.map(() => null);
  let least = 0;
  known.forEach(({ value, at }, rank) => (corrected[at] = least = Math.max(least, Math.min(1, value * (known.length - rank)))));
  return corrected;
}

function Differences(props: { index: Index; runs: RunEntry[] }) {
  const { index, runs } = props;
  const pairs = runs.slice(1).map((run) => findPair(index, runs[0], run));
  const { values, complete } = useDocuments<ComparisonPage>(pairs.flatMap((pair) => (pair ? [pair.key] : [])));
  const corrected = complete && values.length > 1 ? correct(values.map((each) => (each.comparison.test?.p_value ?? null) as number | null)) : [];
  let at = 0;
  return <>{runs.slice(1).map((run, number) => <Difference key={run.key} pair={pairs[number]} corrected={pairs[number] ? corrected[at++] ?? null : null} tests={values.length} letter={LETTERS[number + 1]} />)}</>;
}

function Difference(props: { pair: { key: string; turned: boolean } | null; corrected: number | null; tests: number; letter: string }) {
  const { pair, corrected, tests, letter } = props;
  const { value, error } = useDocument<ComparisonPage>(pair?.key ?? null);
  if (!pair) return <p class="remark">{letter} − A: the report has no paired comparison of these two; the grid below still has their flips.</p>;
  if (error) return <Problem error={error} />;
  if (!value) return <Loading what="the comparison" />;
  const { comparison } = value;
  const { turned } = pair;
  const given = comparison.difference as Estimate;
  const minus = (number: number | null) => (number === null ? null : -number || 0);
  const difference: Estimate = turned ? { value: minus(given.value), low: minus(given.high), high: minus(given.low), n: given.n } : given;
  const [gained, lost] = turned ? [comparison.only_a, comparison.only_b] : [comparison.only_b, comparison.only_a];
  const alone = comparison.test?.p_value as number | null;
  const p = corrected ?? alone;
  const isUndone = alone !== null && p !== null && alone < LEVEL && p >= LEVEL;
  const conclusion = isUndone ? `no evidence of a difference once ${count(tests)} comparisons are counted` : String(comparison.conclusion ?? "").replace(/\bB\b/g, letter);
  return (
    <section class="difference" aria-label={`${letter} minus A`}>
      <div class="difference-figures">
        <span class="muted">{letter} − A</span>
        <b class="big number">{difference.value === null ? "–" : `${points(difference.value)} points`}</b>
        {difference.low !== null && <span class="number">95 %: {points(difference.low)} to {points(difference.high!)}</span>}
        <span class="number" title={corrected === null ? undefined : `${pValue(alone)} for this comparison alone`}>p = {pValue(p)}{corrected !== null && <span class="muted"> after Holm</span>}</span>
        <span class="number muted">n = {count(comparison.total)}</span>
        <span class="gained number">↑ {count(gained)} gained</span>
        <span class="lost number">↓ {count(lost)} lost</span>
        <span class="muted number">{count(comparison.both)} both, {count(comparison.neither)} neither</span>
      </div>
      <Interval estimate={difference} low={-0.5} high={0.5} label={`${letter} minus A`} />
      <p class="muted small">{turned && !isUndone ? "" : <bdi>{conclusion}.</bdi>} <span>Scale −50 to +50 points; {comparison.test?.method}</span></p>
    </section>
  );
}

const NO_CHOICE = new Set(["output.dir", "run.id"]);

/** What was chosen otherwise: agent, model, critic, limits, and the versions of evalkit and the grader. */
function Settings(props: { runs: RunEntry[]; pages: RunPage[] }) {
  const { runs, pages } = props;
  const known = pages.map((page) => new Map<string, unknown>([...page.settings.map((each) => [each.key, each.value] as const), ...Object.entries(page.versions).map(([name, version]) => [`version of ${name}`, version] as const)]));
  if (known.filter((each) => each.size > 0).length < 2) return null;
  const keys = [...new Set(known.flatMap((each) => [...each.keys()]))].filter((key) => !NO_CHOICE.has(key) && new Set(known.filter((each) => each.size > 0).map((each) => JSON.stringify(each.get(key) ?? null))).size > 1);
  return (
    <Section title="Config" note={keys.length ? `${count(keys.length)} ${keys.length === 1 ? "setting differs" : "settings differ"}` : "the same in all"}>
      {keys.length > 0 && (
        <div class="table-frame" tabIndex={0} role="region" aria-label="Table of settings that differ">
          <table class="settings">
            <thead><tr><th>Key</th>{runs.map((run, at) => <th key={run.key}><span class={`letter back-series-${at}`}>{LETTERS[at]}</span></th>)}</tr></thead>
            <tbody>{keys.map((key) => <tr key={key}><th scope="row">{key}</th>{known.map((each, at) => <td key={at}><bdi class="mono">{each.get(key) == null ? "–" : settingText(each.get(key))}</bdi></td>)}</tr>)}</tbody>
          </table>
        </div>
      )}
    </Section>
  );
}

interface Joined {
  id: string;
  places: number[];
  differs: boolean;
  gained: boolean;
  lost: boolean;
}

/** Of several attempts, half have to resolve it, as where runs are compared instance by instance. */
function outcomeAt(table: TableChunk, at: number): "resolved" | "unresolved" | null {
  const rate = table.rates[at];
  return rate == null ? null : rate >= 0.5 ? "resolved" : "unresolved";
}

function joinRows(tables: TableChunk[]): Joined[] {
  const places = tables.map((table) => new Map(table.ids.map((id, at) => [id, at])));
  const ids = [...new Set(tables.flatMap((table) => table.ids))];
  return ids.map((id) => {
    const own = places.map((each) => each.get(id) ?? -1);
    const solved = own.map((at, run) => (at < 0 ? null : outcomeAt(tables[run], at)));
    const judged = solved.filter((each) => each !== null);
    const first = solved[0];
    const others = solved.slice(1);
    const gained = first === "unresolved" && others.includes("resolved");
    const lost = first === "resolved" && others.includes("unresolved");
    return { id, places: own, differs: new Set(judged).size > 1, gained, lost };
  });
}

const VIEWS = ["differ", "gained", "lost", "all"] as const;

function Grid(props: { runs: RunEntry[]; tables: TableChunk[]; route: Route }) {
  const { runs, tables, route } = props;
  const { query } = route;
  const list = useRef<ListHandle | null>(null);
  const all = useMemo(() => joinRows(tables), [tables]);
  const counts = { differ: all.filter((each) => each.differs).length, gained: all.filter((each) => each.gained).length, lost: all.filter((each) => each.lost).length, all: all.length };
  const view = VIEWS.find((each) => each === query.get("show")) ?? (counts.differ ? "differ" : "all");
  const q = (query.get("q") ?? "").toLowerCase();
  const rows = useMemo(() => {
    const matching = all.filter((each) => (view === "all" || (view === "differ" ? each.differs : each[view])) && each.id.toLowerCase().includes(q));
    return matching.sort((a, b) => Number(b.differs) - Number(a.differs) || Number(b.lost) - Number(a.lost));
  }, [all, view, q]);
  const current = () => rows.findIndex((each) => each.id === here().query.get("sel"));
  const at = current();
  const move = (by: number) => {
    if (!rows.length) return;
    const now = current();
    const next = now < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, now + by));
    choose({ sel: rows[next].id });
    list.current?.reveal(next, "nearest");
  };
  useKeys({ j: () => move(1), k: () => move(-1), Enter: (event) => ((event.target as HTMLElement).closest("a,button,summary") ? (event.target as HTMLElement).click() : current() >= 0 && choose({ i: rows[current()].id })), Escape: () => choose(query.has("i") ? { i: null } : { sel: null }) });
  const isTight = runs.length > 4 || useWidth() < 700;
  const template = `minmax(110px, ${isTight ? 3 : 2}fr) repeat(${runs.length}, minmax(${isTight ? 22 : 84}px, 1fr))`;
  return (
    <section aria-label="Instances by run" class="instances">
      <div class="title-line">
        <h2>Instances by run <span class="muted number" role="status">{count(rows.length)}</span></h2>
        <div class="actions"><Search id="search" value={query.get("q") ?? ""} onChange={(text) => choose({ q: text })} label="Search instances" placeholder="Search ids  /" /></div>
      </div>
      <div class="chips" role="group" aria-label="Filters">
        {VIEWS.map((each) => <button key={each} type="button" class="chip" aria-pressed={view === each} onClick={() => choose({ show: each })}>{{ differ: "≠ differ", gained: "↑ gained", lost: "↓ lost", all: "all" }[each]}<b class="number">{count(counts[each])}</b></button>)}
      </div>
      <div class="grid-table" role="table" aria-label="Instances by run" aria-rowcount={rows.length + 1}>
        <div class="grid-head" role="rowgroup"><div class="grid-row" role="row" style={{ gridTemplateColumns: template }}>
          <div role="columnheader">Instance</div>
          {runs.map((run, number) => <div role="columnheader" key={run.key} title={nameOf(run)}><span class={`letter back-series-${number}`}>{LETTERS[number]}</span> {!isTight && <bdi class="wide-only">{nameOf(run)}</bdi>}</div>)}
        </div></div>
        {rows.length ? (
          <List role="rowgroup" size={rows.length} fixed subject={`${view} ${q} ${rows.length}`} estimate={() => 30} covered={TOP + 32} handle={list} render={(index) => {
            const row = rows[index];
            return (
              <div role="row" class="grid-row" aria-rowindex={index + 2} aria-selected={index === at} style={{ gridTemplateColumns: template }}>
                <div role="cell" class="col-id"><a href={address(route.path, withInstance(query, row.id))} title={row.id}><bdi>{row.id}</bdi></a></div>
                {row.places.map((place, number) => <div role="cell" key={number}>{place < 0 ? <span class="muted" title="not in this run">–</span> : <Cell table={tables[number]} at={place} letter={LETTERS[number]} to={address(["runs", runs[number].key, "i", tables[number].keys[place]])} isTight={isTight} />}</div>)}
              </div>
            );
          }} />
        ) : <p class="empty">No instance is so.</p>}
      </div>
    </section>
  );
}

function Cell(props: { table: TableChunk; at: number; letter: string; to: string; isTight: boolean }) {
  const { table, at, letter, to, isTight } = props;
  const isRepeated = table.counted[at] > 1;
  const bucket = (table.attempts[at] > 1 && outcomeAt(table, at)) || table.buckets[at];
  const said = isRepeated ? `${percent(table.rates[at], 0)} of ${count(table.counted[at])}` : bucket;
  return <a class="cell-link" href={to} aria-label={`${letter}: ${isRepeated ? `${bucket}, ${said} attempts` : bucket}`}><Icon bucket={bucket} /><span class={isTight ? "unseen" : "number"}>{said}</span></a>;
}

function withInstance(query: URLSearchParams, id: string): URLSearchParams {
  const next = new URLSearchParams(query);
  next.set("i", id);
  return next;
}

function SideBySide(props: { runs: RunEntry[]; tables: TableChunk[]; id: string; route: Route }) {
  const { runs, tables, id, route } = props;
  const places = tables.map((table) => table.ids.indexOf(id));
  const shown = runs.map((_, at) => at).filter((at) => places[at] >= 0);
  const wanted = (route.query.get("with") ?? "").split(",").filter(Boolean).map((each) => LETTERS.indexOf(each)).filter((at) => shown.includes(at));
  const columns = wanted.length ? wanted : shown.slice(0, 2);
  const what = route.query.get("what") === "patch" ? "patch" : "trajectory";
  const toggle = (at: number) => {
    const next = columns.includes(at) ? columns.filter((each) => each !== at) : [...columns, at].slice(-3);
    choose({ with: next.map((each) => LETTERS[each]).join(",") });
  };
  return (
    <section aria-label="Side by side" class="pairing">
      <div class="title-line">
        <h2><bdi class="id">{id}</bdi></h2>
        <div class="actions">
          {shown.length > 2 && shown.map((at) => <button key={at} type="button" class="chip" aria-pressed={columns.includes(at)} onClick={() => toggle(at)}>{LETTERS[at]}</button>)}
          <button type="button" class="chip" aria-pressed={what === "trajectory"} onClick={() => choose({ what: null })}>trajectories</button>
          <button type="button" class="chip" aria-pressed={what === "patch"} onClick={() => choose({ what: "patch" })}>patches</button>
          <button type="button" class="quiet" onClick={() => choose({ i: null, with: null, what: null })}>close</button>
        </div>
      </div>
      <div class="side-by-side">
        {columns.map((at) => <Side key={runs[at].key} run={runs[at]} letter={LETTERS[at]} number={at} name={tables[at].keys[places[at]]} bucket={tables[at].buckets[places[at]]} what={what} query={route.query.get("find") ?? ""} />)}
      </div>
    </section>
  );
}

function Side(props: { run: RunEntry; letter: string; number: number; name: string; bucket: string; what: string; query: string }) {
  const { value, error } = useDocument<InstancePage>(`runs/${props.run.key}/i/${props.name}`);
  const attempt = value?.attempts.at(-1);
  const part = attempt?.trajectories[0];
  return (
    <section aria-label={`Run ${props.letter}`}>
      <h3><span class={`letter back-series-${props.number}`}>{props.letter}</span> <a href={address(["runs", props.run.key, "i", props.name])}><bdi>{nameOf(props.run)}</bdi></a> <Bucket name={attempt ? outcomeOf(attempt) : props.bucket} />{attempt && <span class="muted number small"> {money(attempt.facts.usage?.cost_usd)} · {duration(attempt.facts.seconds)}</span>}</h3>
      {error ? <Problem error={error} /> : !value ? <Loading /> : props.what === "patch" ? (attempt?.patch ? <PatchText text={attempt.patch} label={`Patch of ${props.letter}`} /> : <p class="muted">There is no patch.</p>) : part ? <Trajectory part={part} boxed at={null} query={props.query} keys={false} onChoose={({ find }) => find !== undefined && choose({ find })} /> : <p class="muted">There is no trajectory.</p>}
    </section>
  );
}

/** The runs' instances as they finished, with what was resolved and spent by then. */
export function cumulate(table: TableChunk, along: "cost" | "time"): { x: number[]; y: number[] } {
  const order = table.ids.map((_, at) => at).filter((at) => table.finished[at] !== null).sort((a, b) => table.finished[a]! - table.finished[b]!);
  const [x, y]: [number[], number[]] = [[0], [0]];
  let [resolved, cost] = [0, 0];
  for (const at of order) {
    resolved += table.buckets[at] === "resolved" ? 1 : 0;
    cost += table.costs_usd[at] ?? 0;
    x.push(along === "cost" ? cost : table.finished[at]!);
    y.push(resolved);
  }
  return { x, y };
}

function Curves(props: { runs: RunEntry[]; pages: RunPage[]; tables: TableChunk[] }) {
  const { runs, pages, tables } = props;
  const series = (along: "cost" | "time"): Series[] => tables.map((table, at) => ({ name: `${LETTERS[at]} ${nameOf(runs[at])}`, class: `series-${at}`, ...cumulate(table, along) })).filter((each) => each.x.length > 1);
  const known = runs.flatMap((run, at) => {
    const estimate = pages[at].summary.resolve_rate as Estimate | null;
    const cost = pages[at].summary.per_instance?.cost_usd?.value as number | null | undefined;
    return estimate?.value != null && cost != null ? [{ name: nameOf(run), letter: LETTERS[at], class: `series-${at}`, x: cost, estimate }] : [];
  });
  const best = (point: (typeof known)[number]) => !known.some((each) => each !== point && each.x <= point.x && each.estimate.value! >= point.estimate.value! && (each.x < point.x || each.estimate.value! > point.estimate.value!));
  const [byCost, byTime] = [series("cost"), series("time")];
  return (
    <Section title="Cost, time and score">
      <div class="plots two">
        {known.length > 1 && known.some((each) => each.x > 0) && <Scatter title="Cost and rate" xName="cost of an instance" xFormat={money} points={known.map((each) => ({ ...each, best: best(each) }))} />}
        {byCost.some((each) => each.x.at(-1)! > 0) && <Lines title="Resolved over cost" series={byCost} xName="cost" yName="resolved" xFormat={money} yFormat={count} stepped />}
        {byTime.length > 0 && <Lines title="Resolved over time" series={byTime} xName="time since the start" yName="resolved" xFormat={duration} yFormat={count} stepped />}
      </div>
      {known.length < runs.length && <p class="muted small">Runs of unknown cost or rate are not in the plot of cost and rate: {LETTERS.slice(0, runs.length).split("").filter((letter) => !known.some((each) => each.letter === letter)).join(", ")}</p>}
    </Section>
  );
}
