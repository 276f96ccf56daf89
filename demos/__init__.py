"""The Gradio app: `app.py` and one file a tab."""
