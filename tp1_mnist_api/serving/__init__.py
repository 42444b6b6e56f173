"""What `app.py` is made of: the model file, the inputs, pictures, logs and metrics, the server.

Nothing here imports TensorFlow, MLflow or labkit: the container holds only what serving needs.
"""
