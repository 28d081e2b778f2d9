-- Run once, when the volume is made: https://hub.docker.com/_/postgres, "Initialization scripts".
CREATE DATABASE mlflow;
