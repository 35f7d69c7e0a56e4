// @ts-check
// Elements as plain descriptions, and bringing the page to what they say.
//
// Views are functions of what is known. Once a second they say what the page should be, and only what
// differs is touched: focus, selection, scrolling and transitions stay as they are. Text is only ever set
// as text, so nothing that the API answers can become markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {{tag: string, key?: string, props: Record<string, any>, children: Child[]}} Node_
 * @typedef {Node_ | string} Child
 */

/**
 * Describes an element. Properties that begin with `on` are listeners, `vars` are custom properties of CSS,
 * `ref` is called with the element when it is made.
 * @param {string} tag `div`, `div.card.wide`, `svg:path`
 * @param {Record<string, any>} [props]
 * @param {...any} children what is false, null or undefined is left out
 * @returns {Node_}
 */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const given = props.class ? [...classes, props.class] : classes;
  const { key, ...rest } = props;
  if (given.length > 0) {
    rest.class = given.join(" ");
  }
  return { tag: name, key, props: rest, children: flatten(children) };
}

/** @param {any[]} children @returns {Child[]} */
function flatten(children) {
  return children
    .flat(4)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== true)
    .map((child) => (typeof child === "object" ? child : String(child)));
}

/**
 * Brings the children of an element to what is described.
 * @param {Element} parent
 * @param {any[]} children
 */
export function render(parent, children) {
  const wanted = flatten(children);
  const keyed = keep(parent, wanted);
  /** @type {ChildNode | null} */
  let place = parent.firstChild;
  for (const child of wanted) {
    /** @type {ChildNode | undefined} */
    let node = fitting(child, place, keyed);
    if (!node && place && fitting(child, place.nextSibling, keyed)) {
      // One has gone: what comes after it stays what it is.
      const gone = place;
      place = place.nextSibling;
      gone.remove();
      node = place ?? undefined;
    }
    node ??= create(child);
    if (node === place) {
      place = node.nextSibling;
    } else {
      parent.insertBefore(node, place);
    }
    update(node, child);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** Children by key; those whose key is not wanted any more go. @param {Element} parent @param {Child[]} wanted */
function keep(parent, wanted) {
  const keys = new Set(wanted.map((child) => (typeof child === "string" ? undefined : child.key)));
  /** @type {Map<string, ChildNode>} */
  const keyed = new Map();
  for (const node of [...parent.childNodes]) {
    const key = /** @type {any} */ (node).description?.key;
    if (key !== undefined && keys.has(key)) {
      keyed.set(key, node);
    } else if (key !== undefined) {
      node.remove();
    }
  }
  return keyed;
}

/** What is there and can become the child. @param {Child} child @param {ChildNode | null} place @param {Map<string, ChildNode>} keyed */
function fitting(child, place, keyed) {
  if (typeof child !== "string" && child.key !== undefined) {
    const node = keyed.get(child.key);
    return node && /** @type {any} */ (node).description.tag === child.tag ? node : undefined;
  }
  if (!place) {
    return undefined;
  }
  if (typeof child === "string") {
    return place.nodeType === Node.TEXT_NODE ? place : undefined;
  }
  const there = /** @type {any} */ (place).description;
  return there?.tag === child.tag && there.key === undefined ? place : undefined;
}

/** @param {Child} child @returns {ChildNode} */
function create(child) {
  if (typeof child === "string") {
    return document.createTextNode(child);
  }
  const [space, name] = child.tag.startsWith("svg:") ? [SVG, child.tag.slice(4)] : [null, child.tag];
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  /** @type {any} */ (element).description = { tag: child.tag, key: child.key, props: {} };
  child.props.ref?.(element);
  return element;
}

/** @param {ChildNode} node @param {Child} child */
function update(node, child) {
  if (typeof child === "string") {
    if (node.nodeValue !== child) {
      node.nodeValue = child;
    }
    return;
  }
  const element = /** @type {any} */ (node);
  const before = element.description.props;
  for (const name of Object.keys(before)) {
    if (!(name in child.props)) {
      set(element, name, undefined, before[name]);
    }
  }
  for (const [name, value] of Object.entries(child.props)) {
    if (value !== before[name] || name === "value" || name === "checked") {
      set(element, name, value, before[name]);
    }
  }
  element.description.props = child.props;
  if (!child.props.opaque) {
    render(element, child.children);
  }
}

/** @param {any} element @param {string} name @param {any} value @param {any} before */
function set(element, name, value, before) {
  if (name === "ref" || name === "opaque") {
    return;
  }
  if (name.startsWith("on")) {
    element[name] = value ?? null;
  } else if (name === "vars") {
    for (const [variable, text] of Object.entries(value ?? {})) {
      if (before?.[variable] !== text) {
        element.style.setProperty(variable, text);
      }
    }
  } else if (name === "value" || name === "checked") {
    // What somebody is typing or dragging is theirs.
    if (document.activeElement !== element && element[name] !== value) {
      element[name] = value ?? "";
    }
  } else if (value === undefined || value === null || value === false) {
    element.removeAttribute(name);
  } else {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}
