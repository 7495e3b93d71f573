"""The page's style and behaviour, kept apart from what fills it. Nothing is fetched from anywhere."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6fa; --card: #fff; --ink: #1b2130; --faint: #667085; --edge: #e4e7ee;
  --roll: #fff; --black: #f3f5fa; --beat: #e9ebf1; --bar: #c3c9d6; --cursor: #e5484d; --accent: #4f6df5;
  --c0: #4f6df5; --c1: #e8743b; --c2: #19a979; --c3: #945ecf; --c4: #d64292;
  --c5: #13a4b4; --c6: #b5901c; --c7: #6c8893;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10131a; --card: #181c25; --ink: #e8ebf2; --faint: #98a2b3; --edge: #282e3a;
    --roll: #12161e; --black: #0d1017; --beat: #20252f; --bar: #3a4252; --cursor: #ff6369; --accent: #8098ff;
    --c0: #7d93ff; --c1: #ff9a66; --c2: #40cf9d; --c3: #b98cf0; --c4: #f078b5;
    --c5: #4cc9d8; --c6: #dbb74a; --c7: #9db6c0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main, body > header, body > footer { max-width: 1320px; margin: 0 auto; padding: 0 24px; }
body > header { padding-top: 40px; }
h1, h2, h3, .facts, .legend li, body > header p { overflow-wrap: anywhere; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; letter-spacing: -.02em; margin: 0; }
body > header p { color: var(--faint); margin: 6px 0 0; }
section { margin: 32px 0; }
.group { display: flex; align-items: center; gap: 14px; margin: 0 0 14px; flex-wrap: wrap; }
h2 { font-size: 1.2rem; margin: 0; letter-spacing: -.01em; }
button, .file {
  font: inherit; font-size: .85rem; font-weight: 600; color: var(--accent); text-decoration: none; cursor: pointer;
  background: none; border: 1px solid var(--edge); border-radius: 999px; padding: 5px 14px; white-space: nowrap;
}
button:hover, .file:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.grid { display: grid; gap: 18px; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--least)), 1fr)); }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 14px; padding: 16px; min-width: 0; }
.card.wide { grid-column: 1 / -1; }
.card.playing { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
h3 { font-size: 1rem; margin: 0; }
.facts { color: var(--faint); font-size: .82rem; margin: 0 0 10px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 0 0 8px; padding: 0; list-style: none; }
.legend li { font-size: .8rem; color: var(--faint); }
.legend li::before {
  content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px;
  background: var(--c);
}
.roll { display: flex; }
.scroll { flex: 1; min-width: 0; overflow-x: auto; overflow-y: hidden; }
.lane { position: relative; cursor: pointer; }
svg { display: block; font: 10px/1 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
.lane svg { width: 100%; }
text { fill: var(--faint); }
text.chord { fill: var(--ink); font-weight: 600; }
.back { fill: var(--roll); }
.key { fill: var(--black); }
line { stroke: var(--beat); }
line.bar { stroke: var(--bar); }
.note { stroke: var(--roll); stroke-width: .8; }
.note.on { opacity: 1; stroke: var(--ink); stroke-width: 1.6; }
.frame { position: absolute; inset: 0; border: 1px solid var(--bar); border-radius: 4px; pointer-events: none; }
.cursor { position: absolute; left: 0; width: 2px; margin-left: -1px; background: var(--cursor); border-radius: 2px;
  pointer-events: none; visibility: hidden; }
.controls { display: flex; align-items: center; gap: 10px; margin-top: 10px; flex-wrap: wrap; }
audio { flex: 1 1 220px; min-width: 0; height: 38px; }
body > footer { color: var(--faint); font-size: .82rem; padding-bottom: 40px; }
@media (max-width: 560px) {
  main, body > header, body > footer { padding-left: 14px; padding-right: 14px; }
  body > header { padding-top: 24px; }
  .card { padding: 12px; border-radius: 12px; }
}
@media (prefers-reduced-motion: no-preference) { .card { transition: border-color .2s, box-shadow .2s; } }
"""

# Audio comes as data: addresses, so that it plays without scripts; turned into blobs, Safari can also seek in it.
SCRIPT = """
'use strict';
const blob = (address) => {
  const [head, body] = address.split(',');
  const bytes = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], {type: head.slice(5).split(';')[0]}));
};
let queue = [];
const players = [...document.querySelectorAll('.card')].flatMap((card) => {
  const audio = card.querySelector('audio');
  if (!audio) return [];
  audio.src = blob(audio.getAttribute('src'));
  const [lane, cursor, scroll] = ['.lane', '.cursor', '.scroll'].map((name) => card.querySelector(name));
  const seconds = Number(card.dataset.seconds);
  const notes = [...card.querySelectorAll('.note')].map((rect) => {
    const from = parseFloat(rect.getAttribute('x')) / 100 * seconds;
    return {rect, from, to: from + parseFloat(rect.getAttribute('width')) / 100 * seconds};
  });
  const draw = () => {
    const now = audio.currentTime, x = Math.min(1, now / seconds) * lane.clientWidth;
    cursor.style.transform = `translateX(${x}px)`;
    cursor.style.visibility = now > 0 && !audio.ended ? 'visible' : 'hidden';
    for (const note of notes) note.rect.classList.toggle('on', !audio.paused && note.from <= now && now < note.to);
    if (!audio.paused) {
      const seen = x - scroll.scrollLeft;
      if (seen < 0 || seen > 0.9 * scroll.clientWidth) scroll.scrollLeft = x - 0.1 * scroll.clientWidth;
      requestAnimationFrame(draw);
    }
  };
  const player = {card, audio};
  audio.addEventListener('play', () => {
    if (queue[0] !== player) queue = [];
    for (const other of players) if (other !== player) other.audio.pause();
    card.classList.add('playing');
    draw();
  });
  audio.addEventListener('pause', () => { card.classList.remove('playing'); draw(); });
  audio.addEventListener('seeked', draw);
  audio.addEventListener('ended', () => {
    draw();
    if (queue[0] !== player) return;
    queue.shift();
    if (queue.length) start(queue[0]);
  });
  lane.addEventListener('click', (event) => {
    const box = lane.getBoundingClientRect();
    audio.currentTime = (event.clientX - box.left) / box.width * seconds;
    audio.play();
  });
  return [player];
});
const start = (player) => { player.audio.currentTime = 0; player.audio.play(); };
for (const button of document.querySelectorAll('button')) {
  const section = button.closest('section');
  button.hidden = false;
  button.addEventListener('click', () => {
    queue = players.filter((player) => section.contains(player.card));
    if (queue.length) start(queue[0]);
  });
}
"""
