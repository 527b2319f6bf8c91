"""The annotators' page: load a photo, steer its segments, let the model complete the rest.

`session.py` holds one photo and its segments; `desk.py` is what buttons and strokes do with them;
`inference.py` calls the model; `safe_image.py` and `coco_files.py` read what users upload;
`drawing.py` makes pictures. `page.py` alone knows Gradio, and `canvas.js` the browser.
"""
