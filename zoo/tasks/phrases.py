from zoo.tasks.model import Model
Task = Model
