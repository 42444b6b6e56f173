# The MNIST API: Flask on granian, NumPy, LiteRT and the exported model; no TensorFlow.
#   docker build -t mnist-api . && docker run -p 5000:5000 mnist-api

FROM python:3.12-slim AS packages
COPY tp1_mnist_api/requirements-serving.txt constraints.txt /tmp/
# The WebGPU library is large, and a CPU never loads it.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --constraint /tmp/constraints.txt \
       --requirement /tmp/requirements-serving.txt \
    && rm -f /venv/lib/python3.*/site-packages/ai_edge_litert/libLiteRtWebGpuAccelerator.so

FROM python:3.12-slim
LABEL org.opencontainers.image.title="mnist-api" \
      org.opencontainers.image.description="Recognises handwritten digits over HTTP" \
      org.opencontainers.image.licenses="MIT"
# TMPDIR: the workers share their metrics there, and it stays writable with --read-only.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TMPDIR=/dev/shm \
    HOST=0.0.0.0 PORT=5000 WORKERS=2
WORKDIR /app
COPY --from=packages /venv /venv
COPY tp1_mnist_api/__init__.py tp1_mnist_api/app.py tp1_mnist_api/
COPY tp1_mnist_api/serving tp1_mnist_api/serving
COPY tp1_mnist_api/model tp1_mnist_api/model
RUN python -m compileall -q tp1_mnist_api
USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=2)"]
CMD ["python", "-m", "tp1_mnist_api.serving.server"]
