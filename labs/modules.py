"""The graded quizzes: of which labs each draws its questions. 10 of them are asked, and 8 right ones pass."""

MODULES = {"module1": ["attention", "efficiency", "positions", "classification"]}
COUNT = 10
