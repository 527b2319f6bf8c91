"""The annotators' page: load a photo, steer its segments, let the model complete the rest.

`annotation_session.py` is one photo and what is done to its segments; `predictor.py` calls the
model; `uploads.py` and `annotation_files.py` read what users upload; `drawing.py` makes pictures;
`desk.py` is what a browser tab works on. `page.py` and `components.py` alone know Gradio, and
`canvas.js` the browser.
"""
