// Line plots by uPlot, which is loaded when the first one is shown. Owns the colours, axes, the sentence and the table beside a
// plot; not the data.
//
// Invariant: a gap in the data is a gap in the line. Everything a plot shows can also be read as a table.

import { useEffect, useRef, useState } from "preact/hooks";
import type uPlotType from "uplot";
import { clock, localTime, short, t } from "../words/words.ts";
import { theme } from "./theme.ts";

export interface Line {
  name: string;
  values: (number | null)[];
  colour: "accent" | "ok" | "bad" | "warn" | "muted";
  fill?: boolean;
}

interface Props {
  title: string;
  sentence: string;
  /** Seconds since 1970. */
  times: number[];
  lines: Line[];
  format?: (value: number) => string;
  height?: number;
  log?: boolean;
}

const token = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(props: Props, width: number): uPlotType.Options {
  const font = "11px Inter, system-ui, sans-serif";
  const axis = { stroke: token("--text-3"), font, grid: { stroke: token("--line"), width: 1 }, ticks: { show: false } };
  const format = props.format ?? short;
  return {
    width,
    height: props.height ?? 160,
    cursor: { y: false, points: { size: 6 }, sync: { key: "trawl" }, drag: { x: false, y: false } },
    legend: { show: false },
    scales: { x: { time: true, range: (plot, min, max) => (plot.data[0].length > 1 ? [min, max] : [min - 30, min + 30]) }, y: props.log ? { distr: 3 } : { range: (_plot, _min, max) => [0, max > 0 ? max * 1.08 : 1] } },
    axes: [
      { ...axis, size: 26, values: (_plot, ticks) => ticks.map((tick) => clock(tick * 1000)), space: 90 },
      { ...axis, size: 58, values: (_plot, ticks) => ticks.map((tick) => (tick === null ? "" : format(tick))), space: 34 },
    ],
    series: [
      {},
      ...props.lines.map((line) => ({
        label: line.name,
        stroke: token(`--plot-${line.colour}`),
        width: 1.5,
        fill: line.fill ? token(`--plot-${line.colour}-fill`) : undefined,
        points: { show: props.times.length < 3 },
        spanGaps: false,
      })),
    ],
  };
}

export function Plot(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlotType | undefined>(undefined);
  const [table, setTable] = useState(false);
  const [at, setAt] = useState<number | null>(null);
  const shape = JSON.stringify([props.lines.map(({ name, colour }) => [name, colour]), props.log, theme.value, localTime.value, table]);
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    let gone = false;
    let observer: ResizeObserver | undefined;
    if (table) return undefined;
    void import("uplot").then(({ default: UPlot }) => {
      const element = box.current;
      if (gone || !element) return;
      const made = options(latest.current, Math.max(120, element.clientWidth));
      made.hooks = { setCursor: [(self) => setAt(self.cursor.idx ?? null)] };
      plot.current = new UPlot(made, data(latest.current), element);
      observer = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(120, element.clientWidth), height: props.height ?? 160 }));
      observer.observe(element);
    });
    return () => {
      gone = true;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [shape]);
  useEffect(() => {
    plot.current?.setData(data(props));
  }, [props.times, props.lines]);
  const format = props.format ?? short;
  return (
    <figure class="plot">
      <figcaption>
        <span class="strong">{props.title}</span>
        <span class="legend">
          {props.lines.map((line) => {
            const value = at === null ? undefined : line.values[at];
            return (
              <span key={line.name} class={`legend-item ${line.colour}`}>
                <i aria-hidden="true" />
                {line.name}
                {value !== undefined && value !== null && <b class="num">{format(value)}</b>}
              </span>
            );
          })}
          {at !== null && props.times[at] !== undefined && <span class="faint num">{clock(props.times[at]! * 1000)}</span>}
        </span>
        <button type="button" class="button quiet small" aria-pressed={table} onClick={() => setTable(!table)}>
          {t("plot.table")}
        </button>
      </figcaption>
      <p class="visually-hidden">{props.sentence}</p>
      {table ? <PlotTable {...props} /> : <div class="plot-box" ref={box} aria-hidden="true" />}
    </figure>
  );
}

function data(props: Props): uPlotType.AlignedData {
  return [props.times, ...props.lines.map(({ values }) => values)];
}

function PlotTable({ times, lines, format = short }: Props) {
  const step = Math.max(1, Math.ceil(times.length / 60));
  return (
    <div class="scroll plot-table" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">{t("plot.time")}</th>
            {lines.map(({ name }) => (
              <th key={name} scope="col" class="right">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times.map((time, index) =>
            index % step === 0 ? (
              <tr key={time}>
                <th scope="row" class="num">
                  {clock(time * 1000)}
                </th>
                {lines.map(({ name, values }) => (
                  <td key={name} class="num right">
                    {values[index] === null || values[index] === undefined ? "–" : format(values[index]!)}
                  </td>
                ))}
              </tr>
            ) : null,
          )}
        </tbody>
      </table>
    </div>
  );
}
