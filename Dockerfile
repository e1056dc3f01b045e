# The two commands of the README, on a machine that has only Docker:
#
#     docker build --tag muonlab .
#     docker run --rm --volume "$PWD/runs:/muonlab/runs" muonlab              # make demo: the report is runs/demo/report.html
#     docker run --rm muonlab make test
#
# Any other command follows likewise: docker run --rm muonlab muonlab doctor
FROM python:3.11-slim

RUN apt-get update && apt-get install --yes --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /muonlab
COPY . .
RUN make setup
ENV PATH=/muonlab/.venv/bin:$PATH
CMD ["make", "demo"]
