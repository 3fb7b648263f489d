"""Tests: unit/ mirrors sppo/, integration/ runs real servers, real vLLM and real processes."""
