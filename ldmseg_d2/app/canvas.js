// The photo on the page: shows what the server drew, and sends strokes of the pointer back.
// `element`, `props`, `trigger` and `watch` come from Gradio's gr.HTML.
const CLICK_DISTANCE = 4; // screen pixels; a longer way is a stroke of the brush
const BRUSHES = ["keep", "erase", "paint"];
let points = null; // of the stroke that is being drawn, in pixels of the photo
let start = null;
let dragged = false;

const tool = () => document.querySelector("#tool input:checked")?.value ?? "select";
const part = (name) => element.querySelector(name);

function brushDiameter() {
  const percent = Number(document.querySelector("#brush input")?.value) || 5;
  return (Math.max(props.value.width, props.value.height) * percent) / 100;
}

function toPhoto(event) {
  const box = part("img").getBoundingClientRect();
  const { width, height } = props.value;
  return [
    ((event.clientX - box.left) / box.width) * width,
    ((event.clientY - box.top) / box.height) * height,
  ];
}

function draw(cursor) {
  const canvas = part("canvas");
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!BRUSHES.includes(tool())) return;
  const scale = canvas.width / props.value.width;
  pen.lineCap = pen.lineJoin = "round";
  if (points && dragged) {
    pen.strokeStyle = "rgba(255, 255, 255, 0.6)";
    pen.lineWidth = Math.max(1, brushDiameter() * scale);
    pen.beginPath();
    points.forEach(([x, y]) => pen.lineTo(x * scale, y * scale));
    pen.stroke();
  }
  if (cursor) {
    for (const [color, width] of [["#000", 3], ["#fff", 1.5]]) {
      pen.strokeStyle = color;
      pen.lineWidth = width;
      pen.beginPath();
      pen.arc(cursor[0] * scale, cursor[1] * scale, (brushDiameter() * scale) / 2, 0, 7);
      pen.stroke();
    }
  }
}

function show() {
  const value = props.value;
  element.classList.toggle("empty", !value?.src);
  if (!value?.src) return;
  const img = part("img");
  img.onload = () => {
    const canvas = part("canvas");
    canvas.width = img.naturalWidth;
    canvas.height = img.naturalHeight;
  };
  img.alt = value.alt;
  img.src = value.src;
}

element.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !props.value?.src || !event.target.closest("canvas")) return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  start = [event.clientX, event.clientY];
  points = [toPhoto(event)];
  dragged = false;
});

element.addEventListener("pointermove", (event) => {
  if (!props.value?.src || !event.target.closest("canvas")) return;
  if (points) {
    const way = Math.hypot(event.clientX - start[0], event.clientY - start[1]);
    dragged = dragged || way > CLICK_DISTANCE;
    for (const one of event.getCoalescedEvents?.() ?? [event]) points.push(toPhoto(one));
  }
  draw(toPhoto(event));
});

function finish(event) {
  if (!points) return;
  const stroke = dragged ? points : points.slice(0, 1);
  const data = { points: stroke.map(([x, y]) => [+x.toFixed(2), +y.toFixed(2)]), drag: dragged };
  points = null;
  if (event.type === "pointerup") trigger("stroke", data);
}
element.addEventListener("pointerup", finish);
element.addEventListener("pointercancel", finish);
element.addEventListener("pointerout", () => !points && props.value?.src && draw(null));

const press = (selector) => document.querySelector(selector)?.click();
const KEYS = {
  v: () => press('#tool input[value="select"]'),
  k: () => press('#tool input[value="keep"]'),
  e: () => press('#tool input[value="erase"]'),
  b: () => press('#tool input[value="paint"]'),
  n: () => press("#new-segment"),
  g: () => press("#segment"),
  c: () => press("#complete"),
  s: () => press("#save"),
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("textarea, select, input:not([type=radio], [type=checkbox])");
  if (typing || event.altKey) return;
  const key = event.key.toLowerCase();
  const command = event.ctrlKey || event.metaKey;
  let action = command ? null : KEYS[key];
  if (command && key === "z") action = () => press(event.shiftKey ? "#redo" : "#undo");
  if (command && key === "y") action = () => press("#redo");
  if (!action) return;
  event.preventDefault();
  action();
});

watch("value", show);
show();
