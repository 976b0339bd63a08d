// @ts-check
/**
 * Texts that branch: each node has one parent, its children are alternatives, one of them active.
 *
 *     root ─▶ question ─▶ answer
 *                     └─▶ another answer ─▶ next question      ‹ 2/2 ›
 *
 * @typedef {{id: string, parent: string | null, children: string[], active: string | null} &
 *   Record<string, any>} Node
 * @typedef {{nodes: Record<string, Node>, count: number}} Tree
 */

/** @returns {Tree} */
export function createTree() {
  return { nodes: { root: { id: "root", parent: null, children: [], active: null } }, count: 0 };
}

/**
 * Add an active child.
 * @param {Tree} tree @param {string} parent @param {Record<string, any>} fields
 */
export function addNode(tree, parent, fields) {
  const id = `n${++tree.count}`;
  tree.nodes[id] = { ...fields, id, parent, children: [], active: null };
  tree.nodes[parent].children.push(id);
  tree.nodes[parent].active = id;
  return tree.nodes[id];
}

/** Return the active nodes below the root, in order. @param {Tree} tree */
export function activePath(tree) {
  const path = [];
  for (let id = tree.nodes.root.active; id; id = tree.nodes[id].active) path.push(tree.nodes[id]);
  return path;
}

/** Return the nodes between the root and a node, and the node. @param {Tree} tree @param {string} id */
export function pathTo(tree, id) {
  const path = [];
  for (let node = tree.nodes[id]; node.parent; node = tree.nodes[node.parent]) path.unshift(node);
  return path;
}

/** Make a node and all its ancestors active. @param {Tree} tree @param {string} id */
export function activate(tree, id) {
  for (const node of pathTo(tree, id)) tree.nodes[/** @type {string} */ (node.parent)].active = node.id;
}

/** Yield all nodes below one, each before its children, with their depth.
 * @param {Tree} tree @returns {Generator<[Node, number]>} */
export function* walk(tree, id = "root", depth = 0) {
  for (const child of tree.nodes[id].children) {
    yield [tree.nodes[child], depth];
    yield* walk(tree, child, depth + 1);
  }
}

/** Make a node the last of the active path; what follows it is kept. @param {Tree} tree @param {string} id */
export function endAt(tree, id) {
  activate(tree, id);
  tree.nodes[id].active = null;
}

/**
 * Return the document of a path. Each node replaces what follows the position `from` by its `text`,
 * whose `tokens` are placed in the document; `scored` are those of the whole document.
 * @param {Node[]} path @returns {{text: string, tokens: import("./tokens.js").Token[]}}
 */
export function composeDocument(path) {
  let text = "";
  /** @type {import("./tokens.js").Token[]} */
  let tokens = [];
  for (const node of path) {
    text = text.slice(0, node.from) + node.text;
    tokens = node.scored ?? [...tokens.filter((token) => token.end <= node.from), ...node.tokens];
  }
  return { text, tokens };
}

/** Yield the nodes of a document's tree with their indentation: only a branch moves to the side.
 * @param {Tree} tree @returns {Generator<[Node, number]>} */
export function* walkBranches(tree, id = "root", indent = 0) {
  const node = tree.nodes[id];
  const end = id === "root" ? 0 : node.from + node.text.length;
  for (const [i, child] of node.children.entries()) {
    // a child may replace the end of its parent
    const inner = indent + (i > 0 || tree.nodes[child].from < end ? 1 : 0);
    yield [tree.nodes[child], inner];
    yield* walkBranches(tree, child, inner);
  }
}
