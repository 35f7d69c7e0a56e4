// @ts-check
// The instances that share one state: who is there, who leads, and who does not follow. Nothing where there is one.

import { h } from "./dom.js";
import { ago, clock, plural } from "./format.js";
import { icon } from "./icons.js";

/** What this instance does without etcd, on every page: elsewhere it may be otherwise. @param {any} cluster */
export function lostCluster(cluster) {
  const away = cluster?.away;
  if (!away) {
    return null;
  }
  const does = away.isolated ? "Canaries have weight 0 on this instance until it is back. Rollbacks and blocks work." : "Rollbacks and blocks work; other changes are refused until it is back.";
  return h(
    `div.notice.level-${away.isolated ? "bad" : "warn"}`,
    { key: "cluster-away", role: "alert" },
    icon(away.isolated ? "bad" : "warn"),
    h("div", {}, h("p", {}, h("strong", {}, `${cluster.instance}: etcd away since ${clock(away.since)} (${ago(away.since)}). `), does), h("pre", { tabindex: "0" }, away.reason)),
  );
}

/** In a few words, for the head of the page. @param {any} cluster */
export function inShort(cluster) {
  if (!cluster) {
    return null;
  }
  const alive = cluster.instances.filter((/** @type {any} */ one) => one.alive).length;
  return h("span", {}, `${alive} of ${plural(cluster.instances.length, "instance")}`);
}

/** All of them. @param {any} cluster */
export function instances(cluster) {
  return (
    cluster &&
    h(
      "div.card",
      { key: "instances" },
      h("h2", {}, `Instances of ${cluster.name}`),
      !cluster.leader && h("p.level-bad", {}, icon("bad"), " Nobody leads: rollouts stand still."),
      h("ul.instances", {}, cluster.instances.map((/** @type {any} */ one) => instance(cluster, one))),
    )
  );
}

/** @param {any} cluster @param {any} one */
function instance(cluster, one) {
  const wrong = !one.alive || one.baseline_differs;
  const level = wrong ? "bad" : one.lag > 0 || one.draining ? "warn" : "ok";
  const words = [
    one.name === cluster.instance && "this one",
    one.name === cluster.leader && "leads",
    !one.alive && "gone",
    one.draining && "drained",
    one.lag > 0 && `${plural(one.lag, "change")} behind`,
    one.baseline_differs && "another config file",
  ].filter(Boolean);
  return h("li", { key: one.name }, icon(level, level === "ok" ? "well" : level), h("strong", {}, one.name), words.length > 0 && h("span.quiet", {}, words.join(", ")));
}
