// What is on screen: layers, colours, timeline, controls. Text from the take is only ever set as text, never as HTML.

const by = (id) => document.getElementById(id);
const canvas = by("picture"), slider = by("line").querySelector("input"), root = document.documentElement;
const LEFT = [64, 186, 255], RIGHT = [255, 138, 61], TRUTH = [76, 200, 120], FUTURE = [186, 140, 255];
const RAMP = [[0, [58, 186, 170]], [0.45, [244, 196, 72]], [1, [232, 62, 88]]]; // sure to unsure
const HEADS = ["head", "head_top", "nose"];
const MOST_SIGMA = 0.2; // metres at the end of the ramp
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const state = { time: 0, playing: false, speed: 1, colour: "side", split: false, skin: true, follow: false, theme: "dark", touched: false };
let renderer, paths, ticking = null, wanted = false;

// ---- colours

function rampAt(share) {
  const upper = RAMP.findIndex(([at]) => at >= Math.min(share, 1)), [high, end] = RAMP[upper];
  if (!upper) return end;
  const [low, start] = RAMP[upper - 1], mix = (Math.min(share, 1) - low) / (high - low);
  return start.map((value, k) => value + mix * (end[k] - value));
}

function personColour(person) { // the palette is made for the dark; light backgrounds want deeper tones
  if (state.theme === "dark") return person.color;
  const bright = (person.color[0] + person.color[1] + person.color[2]) / 3;
  return bright > 235 ? [92, 104, 122] : person.color.map((value) => 0.8 * value);
}

function sideColour(side) {
  const colour = side === 1 ? LEFT : RIGHT;
  return state.theme === "dark" ? colour : colour.map((value) => 0.86 * value);
}

const layerColour = { truth: TRUTH, future: FUTURE };
const share = (colour) => colour.map((value) => value / 255);
const css = (colour) => `rgb(${colour.map(Math.round).join(" ")})`;

function jointColours(layer, person, sigma) {
  if (layer.kind !== "result") return person.sides.map(() => share(layerColour[layer.kind]));
  return person.sides.map((side, joint) => {
    if (state.colour === "sigma") return share(sigma && sigma[joint] !== null ? rampAt(sigma[joint] / MOST_SIGMA) : [130, 138, 150]);
    return share(state.colour === "side" && side ? sideColour(side) : personColour(person));
  });
}

// ---- the picture

function figuresAt(time) {
  return layers.filter((layer) => layer.visible).flatMap((layer) => {
    const moment = momentOf(layer, time);
    return layer.people.filter((person) => person.visible && moment).map((person) => {
      const joints = jointsAt(person, moment), pose = person.mesh && poseAt(person.mesh, moment);
      return { layer, person, moment, joints, pose, sigma: joints && sigmaAt(person, moment) };
    }).filter((figure) => figure.joints || figure.pose);
  });
}

const isSkin = (figure) => figure.pose && (state.skin || !figure.joints);

function capsulesOf({ layer, person, joints, sigma }) {
  const colours = jointColours(layer, person, sigma), rows = [], thin = layer.kind === "result" ? 1 : 0.72;
  for (const [a, b, near, far] of person.bones) {
    if (!joints[a] || !joints[b]) continue;
    const start = state.colour === "sigma" ? colours[a] : colours[b];
    rows.push(...joints[a], ...joints[b], thin * near, thin * far, ...start, ...colours[b]);
  }
  return rows;
}

function drawFigures(view, figures) {
  const solid = figures.filter((figure) => figure.layer.kind === "result"), beside = figures.filter((figure) => figure.layer.kind !== "result");
  const bony = solid.filter((figure) => !isSkin(figure)), skinned = solid.filter(isSkin);
  const bones = bony.flatMap(capsulesOf);
  const draw = (uniforms) => {
    renderer.instances("capsule", bones, uniforms);
    for (const { person, pose, sigma } of skinned) renderer.mesh(person.mesh, pose.rows, skinColour(person, sigma), uniforms);
  };
  renderer.surfaces(view, draw, { shadow: true, alpha: state.theme === "dark" ? 0.42 : 0.2 }, scene.floor);
  renderer.surfaces(view, draw, {}, scene.floor);
  for (const figure of beside) {
    const skin = isSkin(figure), alpha = figure.layer.kind === "truth" ? 0.65 : 0.5, rows = skin ? figure.pose.rows : capsulesOf(figure);
    const draw = (uniforms) => (skin ? renderer.mesh(figure.person.mesh, rows, share(layerColour[figure.layer.kind]), uniforms)
      : renderer.instances("capsule", rows, uniforms));
    renderer.surfaces(view, draw, { alpha, glow: 0.25 }, scene.floor);
  }
  renderer.discs({ ...view, right: [1, 0, 0], up: [0, 1, 0] }, solid.flatMap(printsOf));
  if (state.colour === "sigma") renderer.discs(view, solid.flatMap(discsOf));
}

function skinColour(person, sigma) {
  const middle = sigma && median(sigma);
  if (state.colour === "sigma") return share(middle === null ? [130, 138, 150] : rampAt(middle / MOST_SIGMA));
  return share(personColour(person).map((value) => (state.theme === "dark" ? 0.92 * value : value + 0.45 * (255 - value))));
}

function printsOf({ person, moment, joints }) { // a disc on the floor under a foot that stands
  if (!person.contacts || !joints) return [];
  const frame = moment.mix < 0.5 ? moment.low : moment.high, colour = share(personColour(person));
  return ["left_ankle", "right_ankle"].flatMap((name, foot) => {
    const ankle = joints[person.names.indexOf(name)], stands = person.contacts[2 * frame + foot] > 127;
    return ankle && stands ? [ankle[0], ankle[1], scene.floor + 0.008, 0.11, ...colour] : [];
  });
}

function discsOf({ layer, person, joints, sigma }) {
  if (!joints || !sigma) return [];
  const colours = jointColours(layer, person, sigma);
  return joints.flatMap((joint, number) => (joint && sigma[number] ? [...joint, sigma[number], ...colours[number]] : []));
}

function drawCamera(view) { // where it was filmed from, as a small pyramid
  const { eye, axes, half } = scene.camera, size = 0.3, colour = share(state.theme === "dark" ? [150, 162, 180] : [110, 122, 140]);
  const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => plus(plus(plus(eye, axes[2], size), axes[0], x * half[0] * size), axes[1], y * half[1] * size));
  const line = (a, b) => [...a, ...b, 0.004, 0.004, ...colour, ...colour];
  const rows = corners.flatMap((corner, k) => [...line(eye, corner), ...line(corner, corners[(k + 1) % 4])]);
  renderer.surfaces(view, (uniforms) => renderer.instances("capsule", rows, uniforms), { alpha: 0.7, glow: 0.8 }, scene.floor);
}

function drawPart(left, width, height, ratio, figures, kinds) {
  const view = viewOf(width, height), dark = state.theme === "dark";
  renderer.part(Math.round(left * ratio), Math.round(width * ratio), Math.round(height * ratio));
  const reach = Math.max(14, 3 * viewer.distance);
  renderer.ground(view, [...plus(viewer.target, viewer.shift).slice(0, 2), scene.floor], reach,
    share(dark ? [112, 126, 148] : [150, 162, 180]), share(dark ? [34, 39, 48] : [226, 231, 238]));
  drawCamera(view);
  for (const layer of layers.filter((one) => one.visible && kinds.includes(one.kind))) {
    for (const person of layer.people.filter((one) => one.visible && one.ribbon)) {
      const colour = layer.kind === "result" ? personColour(person) : layerColour[layer.kind];
      renderer.ribbon(view, person.ribbon, share(colour), 0.85, state.time);
    }
  }
  drawFigures(view, figures.filter((figure) => kinds.includes(figure.layer.kind)));
  return view;
}

function draw() {
  wanted = false;
  const { clientWidth: width, clientHeight: height } = canvas, ratio = Math.min(window.devicePixelRatio || 1, 2);
  if (!width || !height) return;
  aim();
  const figures = figuresAt(state.time), background = share(state.theme === "dark" ? [22, 25, 31] : [238, 241, 245]);
  renderer.begin(background, Math.round(width * ratio), Math.round(height * ratio));
  const split = state.split && layers.some((layer) => layer.kind === "truth" && layer.visible);
  const views = split
    ? [[0, width / 2, ["result", "future"]], [width / 2, width / 2, ["truth"]]] : [[0, width, ["result", "truth", "future"]]];
  const drawn = views.map(([left, wide, kinds]) => ({ left, kinds, view: drawPart(left, wide, height, ratio, figures, kinds) }));
  by("halves").hidden = !split;
  placeNames(figures, drawn[0].view);
  tell(figures);
  if (!state.playing) report(figures, drawn);
}

function aim() {
  const place = state.follow ? followedAt(state.time) : paths.middle;
  if (place) viewer.target = [place[0], place[1], viewer.target[2]];
}

function redraw() {
  if (!wanted) requestAnimationFrame(draw);
  wanted = true;
}

// What was drawn where, for tests and the curious: pixels of joints in the page, by layer and person.
function report(figures, drawn) {
  const box = canvas.getBoundingClientRect();
  const people = figures.map(({ layer, person, joints, pose }) => {
    const { left, view } = drawn.find((one) => one.kinds.includes(layer.kind));
    const pixel = (place) => {
      const found = place && project(view, place);
      return found && [found[0] + left + box.left, found[1] + box.top].map((value) => Math.round(100 * value) / 100);
    };
    return { layer: layer.kind, id: person.id, joints: joints && joints.map(pixel), bones: pose && pose.joints.map(pixel) };
  });
  const { eye, right, up, ahead, scale, width, height } = drawn[0].view;
  root.dataset.drawn = JSON.stringify({ frame: frameNumber(), time: state.time, people, page: [innerWidth, innerHeight], box: [box.left, box.top, width, height], eye, right, up, ahead, scale });
  root.dataset.state = "drawn";
}

function placeNames(figures, view) {
  const several = result.people.length > 1 ? figures.filter((figure) => figure.layer.kind === "result") : [];
  by("names").replaceChildren(...several.flatMap(({ person, joints, pose }) => {
    const places = joints || pose.joints, head = person.names ? places[HEADS.map((name) => person.names.indexOf(name)).find((at) => at >= 0)] : null;
    const top = head || places.filter(Boolean).reduce((a, b) => (b[2] > a[2] ? b : a)), pixel = project(view, plus(top, [0, 0, 0.22]));
    if (!pixel) return [];
    const label = element("span", String(person.id));
    label.style.transform = `translate(calc(${pixel[0].toFixed(1)}px - 50%), calc(${pixel[1].toFixed(1)}px - 50%))`;
    label.style.background = css(person.color);
    return [label];
  }));
}

function element(kind, text) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- paths on the floor

function makeRibbons() {
  for (const layer of layers) for (const person of layer.people) {
    const path = person.path || (person.mesh && person.mesh.path);
    if (path) person.ribbon = renderer.ribbonArray(ribbonOf(path, layer.times, layer.kind === "result" ? 0.022 : 0.013));
  }
}

function ribbonOf(path, moments, half) {
  const places = [], corners = [];
  for (let frame = 0; frame < moments.length; frame++) {
    const place = point(path, frame), last = places[places.length - 1];
    if (Number.isNaN(place[0])) { if (last) places.push(null); continue; }
    if (last && Math.hypot(place[0] - last.place[0], place[1] - last.place[1]) < 0.03) continue;
    places.push({ place, time: moments[frame] });
  }
  for (let k = 1; k < places.length; k++) {
    const [a, b] = [places[k - 1], places[k]];
    if (!a || !b) continue;
    const along = unit(minus([b.place[0], b.place[1], 0], [a.place[0], a.place[1], 0])), side = [-along[1], along[0]];
    const corner = (end, sign) => [end.place[0] + sign * half * side[0], end.place[1] + sign * half * side[1], scene.floor + 0.006, end.time];
    corners.push(...corner(a, -1), ...corner(a, 1), ...corner(b, 1), ...corner(a, -1), ...corner(b, 1), ...corner(b, -1));
  }
  return corners;
}

// ---- time

const frameNumber = () => nearestIndex(times, state.time);

function clock(seconds) {
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), two = (value) => String(value).padStart(2, "0");
  return `${hours ? `${hours}:` : ""}${two(minutes % 60)}:${two((Math.floor(seconds * 100) / 100 % 60).toFixed(2).padStart(5, "0"))}`;
}

function seek(frame) {
  state.time = times[Math.min(Math.max(frame, 0), times.length - 1)];
  redraw();
}

function play(on) {
  state.playing = on;
  by("play").setAttribute("aria-label", on ? "Pause" : "Play");
  by("play").querySelector("path").setAttribute("d", on ? "M6.5 4.5h4v15h-4zM13.5 4.5h4v15h-4z" : "M7 4.5v15l13-7.5z");
  if (on && state.time >= times[times.length - 1]) state.time = times[0];
  cancelAnimationFrame(ticking);
  if (!on) return seek(frameNumber());
  let before = null;
  const tick = (now) => {
    state.time += before === null ? 0 : Math.min(now - before, 200) / 1000 * state.speed;
    if (state.time > times[times.length - 1]) state.time = times[0];
    before = now;
    draw();
    ticking = requestAnimationFrame(tick);
  };
  ticking = requestAnimationFrame(tick);
}

function tell(figures) {
  const shown = momentOf(result, state.time);
  slider.value = frameNumber();
  slider.setAttribute("aria-valuetext", clock(scene.start + state.time));
  by("time").querySelector("b").textContent = clock(scene.start + state.time);
  by("time").querySelector("span").textContent = shown ? `frame ${shown.low * scene.step} of ${scene.frames}` : "beyond the result";
  for (const person of result.people) {
    const figure = figures.find((one) => one.person === person);
    person.note.textContent = figure ? noteOf(figure) : person.visible ? "not here" : "hidden";
  }
  tellError(figures);
}

function noteOf({ person, moment, sigma }) {
  const middle = sigma && median(sigma), speed = speedOf(person, moment), notes = [];
  if (middle !== null) notes.push(`±${(100 * middle).toFixed(0)} cm`);
  if (speed !== null) notes.push(`${speed.toFixed(1)} m/s`);
  return notes.join("  ·  ");
}

function speedOf(person, moment) { // of the root along the floor, over about a third of a second
  const path = person.path || (person.mesh && person.mesh.path), last = result.times.length - 1;
  if (!path || last < 1) return null;
  const reach = Math.max(1, Math.round(0.15 * scene.fps / scene.step)), low = Math.max(moment.low - reach, 0), high = Math.min(moment.low + reach, last);
  const apart = minus(point(path, high), point(path, low)), speed = Math.hypot(apart[0], apart[1]) / (result.times[high] - result.times[low]);
  return Number.isFinite(speed) ? speed : null;
}

function tellError(figures) {
  const truth = layers.find((layer) => layer.kind === "truth"), person = result.people.find((one) => one.names);
  if (!truth || !person || !truth.people.length) return;
  const other = truth.people.find((one) => one.id === person.id) || truth.people[0];
  const now = momentOf(result, state.time), error = now && jointError(person, other, now, momentOf(truth, state.time));
  const figure = error === null ? "not known here" : `${(1000 * error).toFixed(0)} mm`;
  by("apart").textContent = `Mean joint error of person ${person.id}, roots together: ${figure}`;
}

function drawTimeline() { // a band per person: coloured by how sure, blank where absent
  const band = by("line").querySelector("canvas"), ratio = window.devicePixelRatio || 1, paper = band.getContext("2d");
  const width = band.width = Math.max(1, Math.round(band.clientWidth * ratio)), height = band.height = Math.round(band.clientHeight * ratio);
  paper.fillStyle = getComputedStyle(root).getPropertyValue("--back");
  paper.fillRect(0, 0, width, height);
  const rows = layers.flatMap((layer) => layer.people.map((person) => ({ layer, person })));
  const gap = Math.round(3 * ratio), tall = Math.max(1, (height - gap) / Math.max(rows.length, 1) - gap);
  rows.forEach(({ layer, person }, row) => {
    for (let x = 0; x < width; x++) {
      const time = times[Math.round(x / Math.max(width - 1, 1) * (times.length - 1))], moment = momentOf(layer, time);
      if (!moment || !rootOrPose(person, { ...moment, high: moment.low, mix: 0 })) continue;
      const middle = layer.kind === "result" && person.sigma ? median(sigmaAt(person, moment)) : null;
      paper.fillStyle = css(layer.kind !== "result" ? layerColour[layer.kind] : middle === null ? person.color : rampAt(middle / MOST_SIGMA));
      paper.fillRect(x, Math.round(gap + row * (tall + gap)), 1, Math.max(1, Math.round(tall)));
    }
  });
}

// ---- the words beside it

function fillPanel() {
  by("name").textContent = scene.name;
  by("headline").textContent = scene.headline;
  for (const [id, sentences] of [["caption", scene.caption], ["assumed", scene.assumed], ["warnings", scene.warnings]]) {
    const list = id === "caption" ? by(id) : by(id).querySelector("ul");
    list.replaceChildren(...sentences.map((sentence) => element("li", sentence)));
    if (id !== "caption") by(id).hidden = !sentences.length;
  }
  by("people").replaceChildren(...result.people.map((person) => {
    const row = switchOf(`person ${person.id}`, person);
    person.note = row.appendChild(element("small"));
    return row;
  }));
  if (!result.people.length) by("people").append(element("li", "nobody was lifted"));
  const beside = layers.slice(1);
  by("layers").hidden = !beside.length;
  by("layers").querySelector("ul").replaceChildren(...beside.map((layer) => switchOf(layer.label, layer)));
  by("apart").hidden = by("split").hidden = !layers.some((layer) => layer.kind === "truth");
  by("skin").hidden = !result.people.some((person) => person.mesh && person.names);
  const [ours, theirs] = by("halves").children;
  ours.textContent = "result";
  theirs.textContent = (layers.find((layer) => layer.kind === "truth") || { label: "" }).label;
}

function switchOf(text, thing) {
  const row = element("li"), label = element("label"), box = element("input"), dot = element("i");
  Object.assign(box, { type: "checkbox", checked: true });
  box.addEventListener("change", () => { thing.visible = box.checked; redraw(); });
  label.append(box, dot, element("span", text));
  thing.dot = dot;
  row.append(label);
  return row;
}

function paintDots() {
  for (const layer of layers) {
    if (layer.dot) layer.dot.style.background = css(layerColour[layer.kind]);
    for (const person of layer.people) if (person.dot) person.dot.style.background = css(personColour(person));
  }
}

function fillLegend() {
  const legend = by("legend");
  legend.replaceChildren();
  const bony = result.people.some((person) => person.names && !(person.mesh && state.skin));
  if (state.colour === "side" && bony) for (const [text, side] of [["left", 1], ["right", 2]]) {
    const dot = element("i"), label = element("span");
    dot.style.background = css(sideColour(side));
    label.append(dot, text);
    legend.append(label);
  }
  if (state.colour === "sigma") {
    const ramp = element("canvas"), ends = element("span");
    Object.assign(ramp, { width: 128, height: 1 });
    for (let x = 0; x < 128; x++) {
      const paper = ramp.getContext("2d");
      paper.fillStyle = css(rampAt(x / 127));
      paper.fillRect(x, 0, 1, 1);
    }
    ends.className = "ends";
    ends.append(element("span", "sure: 0"), element("span", `${100 * MOST_SIGMA} cm and more`));
    legend.append(ramp, ends);
  }
}

// ---- controls

function pressed(group, key, value) {
  for (const button of by(group).querySelectorAll(`[data-${key}]`)) button.setAttribute("aria-pressed", String(button.dataset[key] === value));
}

function setColour(colour) {
  state.colour = colour;
  pressed("colours", "colour", colour);
  fillLegend();
  redraw();
}

function setTheme(theme) {
  root.dataset.theme = state.theme = theme;
  paintDots();
  fillLegend();
  drawTimeline();
  redraw();
}

function setFollow(on) {
  state.follow = on;
  by("follow").setAttribute("aria-pressed", String(on));
  redraw();
}

function look(name) {
  state.touched = false;
  setView(name);
  fit();
}

function fit() {
  const { distance, height } = fitDistance(canvas.clientWidth / (state.split ? 2 : 1), canvas.clientHeight, state.follow, paths.middle);
  viewer.distance = distance;
  viewer.target[2] = height;
  redraw();
}

function setSplit(on) {
  state.split = by("split").querySelector("input").checked = on;
  fit();
}

function setSkin(on) {
  state.skin = by("skin").querySelector("input").checked = on;
  fillLegend();
  redraw();
}

function setSpeed(step) {
  const box = by("speed").querySelector("select"), at = SPEEDS.indexOf(state.speed) + step;
  state.speed = SPEEDS[Math.min(Math.max(at, 0), SPEEDS.length - 1)];
  box.value = String(state.speed);
}

function setDetails(on) {
  document.body.classList.toggle("plain", !on);
  by("more").setAttribute("aria-expanded", String(on));
  drawTimeline();
  redraw();
}

const KEYS = {
  " ": () => play(!state.playing), arrowup: () => setSpeed(1), arrowdown: () => setSpeed(-1), home: () => seek(0), end: () => seek(times.length - 1),
  1: () => look("filmed"), 2: () => look("side"), 3: () => look("top"), f: () => setFollow(!state.follow), m: () => setSkin(!state.skin),
  c: () => setColour({ side: "person", person: "sigma", sigma: "side" }[state.colour]), b: () => setSplit(!state.split),
  t: () => setTheme(state.theme === "dark" ? "light" : "dark"), i: () => setDetails(document.body.classList.contains("plain")),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const step = { arrowleft: -1, arrowright: 1 }[event.key.toLowerCase()];
  if (step) {
    play(false);
    seek(frameNumber() + step * (event.shiftKey ? Math.max(1, Math.round(scene.fps / scene.step)) : 1));
  } else if (KEYS[event.key.toLowerCase()]) KEYS[event.key.toLowerCase()]();
  else return;
  event.preventDefault();
}

function listen() {
  addEventListener("keydown", onKey);
  addEventListener("resize", () => { drawTimeline(); if (state.touched) redraw(); else fit(); });
  addEventListener("hashchange", obeyHash);
  by("play").addEventListener("click", () => play(!state.playing));
  slider.addEventListener("input", () => { play(false); seek(Number(slider.value)); });
  by("speed").addEventListener("change", (event) => { state.speed = Number(event.target.value); });
  by("views").addEventListener("click", (event) => event.target.dataset.view && look(event.target.dataset.view));
  by("colours").addEventListener("click", (event) => event.target.dataset.colour && setColour(event.target.dataset.colour));
  by("follow").addEventListener("click", () => setFollow(!state.follow));
  by("theme").addEventListener("click", KEYS.t);
  by("more").addEventListener("click", KEYS.i);
  by("split").addEventListener("change", (event) => setSplit(event.target.checked));
  by("skin").addEventListener("change", (event) => setSkin(event.target.checked));
  canvas.addEventListener("dblclick", () => look("start"));
  canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); fail(new Error("the graphics card took the picture away; reload the page")); });
  listenToPointers();
}

function listenToPointers() {
  const held = new Map();
  canvas.addEventListener("pointerdown", (event) => { held.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => held.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => { state.touched = true; zoom(Math.exp(0.0012 * event.deltaY)); event.preventDefault(); }, { passive: false });
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    state.touched = true;
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    const other = [...held.values()].find((one) => one.pointerId !== event.pointerId);
    if (other) {
      const gap = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      zoom(gap(before) / Math.max(gap(event), 1));
      pan(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 6) pan(dx, dy);
    else turn(dx, dy);
    held.set(event.pointerId, event);
  });
}

function zoom(factor) {
  viewer.distance = Math.min(Math.max(viewer.distance * factor, 0.4), 120);
  redraw();
}

function turn(dx, dy) {
  viewer.yaw -= 0.008 * dx;
  viewer.pitch = Math.min(Math.max(viewer.pitch + 0.008 * dy, -0.3), Math.PI / 2 - 0.01);
  redraw();
}

function pan(dx, dy) {
  const view = viewOf(canvas.clientWidth, canvas.clientHeight), metres = viewer.distance / view.scale;
  viewer.shift = plus(plus(viewer.shift, view.right, -dx * metres), view.up, dy * metres);
  redraw();
}

// ---- start

// A link to a moment: page.html#frame=40&view=side&colour=sigma&theme=light&split&plain&skeleton
function obeyHash() {
  const wish = new URLSearchParams(location.hash.slice(1));
  if (["light", "dark"].includes(wish.get("theme"))) setTheme(wish.get("theme"));
  if (["side", "person", "sigma"].includes(wish.get("colour"))) setColour(wish.get("colour"));
  if (wish.has("split")) setSplit(true);
  if (wish.has("skeleton")) setSkin(false);
  if (wish.has("plain")) setDetails(false);
  if (["filmed", "side", "top"].includes(wish.get("view"))) look(wish.get("view"));
  if (!wish.has("frame")) return false;
  play(false);
  seek(nearestIndex(times, times[Math.round(Number(wish.get("frame")) / scene.step)] ?? times[times.length - 1]));
  return true;
}

function fail(error) {
  by("trouble").hidden = false;
  by("trouble").textContent = `Nothing can be shown: ${error.message || error}.`;
  root.dataset.state = "failed";
}

function start() {
  renderer = new Renderer(canvas);
  slider.max = times.length - 1;
  paths = surveyPaths();
  makeRibbons();
  fillPanel();
  listen();
  setDetails(innerWidth > 760);
  setTheme(matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  setColour("side");
  setFollow(paths.wide);
  aim();
  look("start");
  if (!obeyHash()) play(times.length > 1 && !matchMedia("(prefers-reduced-motion: reduce)").matches);
  draw();
}

try { start(); } catch (error) { fail(error); }
