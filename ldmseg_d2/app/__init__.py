"""The annotators' page: load a photo, steer its segments, let the model complete the rest.

`annotation_session.py` is one photo and what is done to it, `predictor.py` calls the model,
`desk.py` is what a tab works on; `uploads.py` and `annotation_files.py` read what users upload.
`page.py` and `components.py` alone know Gradio, and `canvas.js` the browser.
"""
