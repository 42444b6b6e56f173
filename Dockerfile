# The MNIST API: Flask, NumPy, LiteRT and the exported model; no TensorFlow.
#   docker build -t mnist-api . && docker run -p 5000:5000 mnist-api

FROM python:3.12-slim AS packages
COPY tp1_mnist_api/requirements-serving.txt constraints.txt /tmp/
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --constraint /tmp/constraints.txt \
       --requirement /tmp/requirements-serving.txt

FROM python:3.12-slim
LABEL org.opencontainers.image.title="mnist-api" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PORT=5000
WORKDIR /app
COPY --from=packages /venv /venv
COPY tp1_mnist_api/__init__.py tp1_mnist_api/app.py tp1_mnist_api/
COPY tp1_mnist_api/model tp1_mnist_api/model
USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=2)"]
# exec: gunicorn itself gets SIGTERM and finishes the requests in flight. /dev/shm: works read-only.
CMD ["sh", "-c", "exec gunicorn --bind 0.0.0.0:$PORT --workers 1 --threads 4 --worker-tmp-dir /dev/shm 'tp1_mnist_api.app:create_default_app()'"]
